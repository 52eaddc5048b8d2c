"""pip and conda where an environment is not the person's: one sentence, one action, no dead end."""

from __future__ import annotations

import functools
import json
import os
import shlex
import subprocess
import sys
import sysconfig
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kernels import absent, conda_commands, current, own_environments, packages, user_site
from kernels.messages import catalogue
from kernels.packages import GO_ON, Offer
from tests.kernels.conftest import write_program

ROOT = Path(__file__).resolve().parents[2]
INSIDE = ROOT / "config/images/server/inside"


def distribution(prefix: Path, name: str, version: str, python: str = "3.13") -> Path:
    folder = prefix / f"lib/python{python}/site-packages" / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


@pytest.fixture(autouse=True)
def stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer of these turns the tests' own process into another program."""

    def become(*words: object) -> None:
        raise AssertionError(f"becomes {words}")

    for name in ("execv", "execve", "execvp"):
        monkeypatch.setattr(os, name, become)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An environment of others', and a server that was started with another one.

    In a folder where no project has a ``.venv``.
    """
    monkeypatch.chdir(tmp_path)
    prefix = tmp_path / "shared"
    distribution(prefix, "numpy", "2.1.0")
    monkeypatch.setattr(
        packages,
        "environment_of",
        lambda prefix: ("shared", "lab") if "shared" in prefix else ("personal", "mine"),
    )
    monkeypatch.setenv("LABCOMMONS_ENVIRONMENT", "py313-data:7")
    monkeypatch.setenv(packages.OFFER, str(tmp_path / "offer"))
    monkeypatch.setenv("LABCOMMONS_LANGUAGE", "en")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    return str(prefix)


def offered(tmp_path: Path) -> list[Any]:
    file = tmp_path / "offer"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize(
    ("words", "pip", "add"),
    [
        (["cowsay"], ["cowsay"], []),
        (["--user", "-q", "cowsay"], ["cowsay"], []),
        (["numpy", "pandas>=2"], ["pandas>=2"], []),
        (["numpy<2"], ["numpy<2"], []),
        (["-U", "numpy"], ["numpy"], []),
        (["-U", "pip", "cowsay"], ["cowsay"], []),
        (["-qU", "numpy"], ["numpy"], []),
        (["-qr", "REQ"], ["flask[async]>=3", "requests"], []),
        (["-rREQ"], ["flask[async]>=3", "requests"], []),
        (["setuptools<81"], ["setuptools<81"], []),
        (["setuptools"], ["setuptools"], []),
        (["-e", "."], [], ["pip"]),
        (["git+https://x/y.git"], [], ["pip"]),
        (["-r", "REQ"], ["flask[async]>=3", "requests"], []),
    ],
)
def test_what_cannot_be_installed_is_offered_as_a_copy_of_ones_own(
    shared: str, tmp_path: Path, words: list[str], pip: list[str], add: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Kind: installing into a read-only environment, however it is written."""
    (tmp_path / "REQ").write_text(
        "# what we need\nflask[async]>=3  # web\n\nrequests \\\n  --hash=sha256:aa\nnumpy\n"
    )
    words = [word.replace("REQ", str(tmp_path / "REQ")) for word in words]
    assert packages.pip(shared, ["install", *words]) == 1
    [made] = offered(tmp_path)
    assert (made["source"], made["name"]) == ("shared", "lab")
    assert (made["pip"], made["add"]) == (pip, add)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert made["command"] in said
    assert "sudo" not in said
    assert "--user" not in said


@pytest.mark.parametrize("option", ["-i", "--index-url", "--extra-index-url", "-f"])
def test_another_index_is_said_not_to_be_asked(
    shared: str, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`pip install torch --index-url …/cu121`, as PyTorch's page has it."""
    where = "https://wheels.example.org/cu121"
    assert packages.pip(shared, ["install", "torch", option, where]) == 1
    assert f"{where} is not asked" in capsys.readouterr().err
    [made] = offered(tmp_path)
    assert made["pip"] == ["torch"]


@pytest.mark.parametrize("words", [["numpy"], ["numpy>=2"], ["-U", "pip", "wheel"]])
def test_what_is_there_already_is_no_refusal(
    shared: str, tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: the first cell of tutorials, which installs what is there already."""
    assert packages.pip(shared, ["install", *words]) == 0
    assert offered(tmp_path) == []


@pytest.mark.parametrize(
    "words", [["install", "--target", "x", "a"], ["install", "--dry-run", "a"], ["install", "-h"]]
)
def test_what_goes_elsewhere_is_pips_own_business(shared: str, words: list[str]) -> None:
    assert packages.pip(shared, words) == GO_ON


def test_ones_own_is_installed_into_and_never_the_home(
    shared: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: --user, which would change every kernel of one Python."""
    mine = tmp_path / "mine"
    mine.mkdir()
    assert packages.pip(str(mine), ["install", "--user", "cowsay"]) == GO_ON
    assert "“mine”" in capsys.readouterr().err


def test_without_an_index_the_site_builds_it(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kind: a site whose servers reach no index: the answer is true there, too."""
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.delenv("HTTPS_PROXY")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    assert packages.pip(str(mine), ["install", "cowsay"]) == 1
    [made] = offered(tmp_path)
    assert (made["source"], made["name"], made["pip"]) == ("personal", "mine", ["cowsay"])


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("sudo", ["apt", "install", "graphviz"], "no_root_packages"),
        ("apt-get", ["install", "-y", "graphviz"], "no_root_packages"),
        ("apt", ["remove", "x"], "no_root"),
        ("sudo", ["-E", "pip", "install", "x"], "no_sudo"),
        ("poetry", ["add", "x"], "program_missing"),
        ("pipx", ["install", "x"], "program_missing"),
        ("uv", ["add", "x"], "program_missing"),
        ("uv", ["tool", "install", "black"], "program_missing"),
        ("brew", ["install", "tree"], "no_root_packages"),
        ("sudo", ["systemctl", "restart", "x"], "no_root"),
        ("npm", ["i", "-g", "x"], "program_missing"),
        ("docker", ["run", "x"], "no_containers"),
        ("module", ["load", "cuda"], "no_modules"),
        ("sbatch", ["x.sh"], "no_slurm"),
        ("nvidia-smi", [], "no_gpu"),
        ("uv", ["pip", "install", "cowsay"], "read_only_add"),
        ("virtualenv", ["-p", "python3.2", "v"], "python_missing"),
        ("uv", ["venv", "--python=3.2"], "python_missing"),
        ("python3.2", ["-m", "venv", "v"], "python_missing"),
        ("pyenv", ["install", "3.2"], "python_missing"),
        ("quota", ["-s"], "room"),
        ("screen", [], "other_program"),
        ("qsub", ["x.sh"], "no_slurm"),
        ("jupyter-notebook", ["--no-browser"], "lab_runs"),
        ("jupyter-nbextension", ["enable", "--py", "x"], "front_ends_come"),
    ],
)
def test_programs_of_tutorials_answer_with_what_can_be_done(
    shared: str, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str], code: str
) -> None:
    """Kind: advice that nobody can follow in a server."""
    said = []
    for module in (packages, absent):
        monkeypatch.setattr(module, "tell", lambda message: said.append(message.code))
    monkeypatch.setenv("CONDA_PREFIX", shared)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert absent.answer(name, words) != 0
    assert said == [code]


@pytest.mark.parametrize(
    ("name", "words", "wanted"),
    [
        ("pipx", ["install", "black"], "labcommons env add --from shared/lab black"),
        ("pipx", ["run", "--quiet", "black"], "labcommons env add --from shared/lab black"),
        ("uvx", ["ruff", "check"], "labcommons env add --from shared/lab ruff"),
        ("uv", ["tool", "run", "ruff"], "labcommons env add --from shared/lab ruff"),
        ("uv", ["sync"], "labcommons env add --from shared/lab uv"),
        ("npx", ["x"], "labcommons env add --from shared/lab --conda nodejs"),
        ("Rscript", ["a.R"], "labcommons env add --from shared/lab --conda r-base"),
        ("hf", ["download", "x"], "labcommons env add --from shared/lab huggingface_hub"),
        ("pdflatex", ["x.tex"], "labcommons env add --from shared/lab --conda texlive-core"),
        (
            "apt",
            ["install", "build-essential", "python3-numpy", "libgl1"],
            "labcommons env add --from shared/lab --conda compilers numpy libgl",
        ),
    ],
)
def test_what_takes_the_place_of_a_program_is_named_by_its_package(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str],
    wanted: str,
) -> None:  # fmt: skip
    """Kind: a program that runs others, or that a package of another name brings."""
    monkeypatch.setenv("CONDA_PREFIX", shared)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert absent.answer(name, words) != 0
    [made] = offered(tmp_path)
    assert made["command"] == wanted
    assert absent.answer("apt-get", ["update"]) == 0  # "apt-get update && apt-get install …"


def test_a_command_that_is_nowhere_is_not_found_as_in_any_shell(
    tmp_path: Path, shared: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: advice for what nobody knows would be wrong."""
    assert absent.not_found("nosuchthing", []) == 127
    assert capsys.readouterr().err == "bash: nosuchthing: command not found\n"
    assert offered(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "words", "given"),
    [
        ("virtualenv", ["-p", "python3", "--no-download", "v"], ["v"]),
        ("virtualenv", ["--system-site-packages", "--prompt", "x", "v"], None),
        ("uv", ["venv"], [".venv"]),
        ("uv", ["--quiet", "venv", "-p", "3", "mine"], ["mine"]),
    ],
)
def test_a_venv_is_made_by_pythons_own(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: list[str],
    given: list[str] | None,
) -> None:  # fmt: skip
    """Kind: virtualenv and uv venv as tutorials write them, with the Python that they name."""
    for program in ("python", "python3"):
        write_program(tmp_path / "active", program)
    monkeypatch.setenv("PATH", str(tmp_path / "active/bin"))
    ran: list[str] = []

    def become(program: str, line: list[str]) -> None:
        ran.extend([program, *line[1:]])
        raise SystemExit

    monkeypatch.setattr(os, "execvp", become)
    with pytest.raises(SystemExit):
        absent.answer(name, words)
    assert Path(ran[0]).parent == tmp_path / "active/bin"
    assert ran[1:] == ["-m", "venv", *(given or words)]


def test_requirements_at_an_address_are_read_and_one_that_is_silent_is_said(
    shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Kind: files that tutorials name by their address."""
    monkeypatch.delenv("HTTPS_PROXY")
    (tmp_path / "r.txt").write_text("flask\n")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{web.server_port}"
        assert packages.pip(shared, ["install", "-r", f"{here}/r.txt"]) == 1
        assert [one["pip"] for one in offered(tmp_path)] == [["flask"]]
        capsys.readouterr()
        for address in (f"{here}/none.txt", "http://127.0.0.1:9/r.txt"):
            assert packages.pip(shared, ["install", "-r", address]) == 1
            said = capsys.readouterr().err.splitlines()
            assert f"{address} cannot be read" in said[-1]
        web.shutdown()


def test_channels_that_conda_is_told_of_come_before_the_environments_own(
    shared: str, tmp_path: Path
) -> None:
    """Kind: ``-c``, once or often, before and behind the packages: none of these is in each."""
    line = conda_commands.read(["install", "-yc", "pytorch", "torch", "pip", "--channel=nvidia"])
    assert conda_commands.install(shared, line) == 1
    [made] = offered(tmp_path)
    assert (made["add"], made["channels"]) == (["torch", "pip"], ["pytorch", "nvidia"])
    assert made["command"].endswith("--conda -c pytorch -c nvidia torch pip")
    given = shlex.split(made["command"])[2:]
    chosen = own_environments.parser().parse_args(given)
    assert own_environments._wanted(chosen).channels == ("pytorch", "nvidia")


def test_files_of_requirements_lead_on_and_one_that_is_not_there_is_pips_to_name(
    shared: str, tmp_path: Path
) -> None:
    """Kind: requirements as repositories have them: nested, of Windows, absent."""
    (tmp_path / "base.txt").write_bytes("\ufeffflask\r\n".encode("utf-16-le"))
    (tmp_path / "dev.txt").write_text("-r base.txt\n-c limits.txt\n--pre\nblack\n")
    assert packages.pip(shared, ["install", "-r", str(tmp_path / "dev.txt")]) == 1
    assert [one["pip"] for one in offered(tmp_path)] == [["flask", "black"]]
    assert packages.pip(shared, ["install", "-r", str(tmp_path / "no.txt")]) == GO_ON
    assert packages.pip(shared, ["uninstall", "-y", "nosuchthing"]) == GO_ON


def test_a_file_of_an_environment_is_added_to_what_is_there(shared: str, tmp_path: Path) -> None:
    """Kind: conda env update, conda install --file; never a traceback of YAML."""
    file = tmp_path / "environment.yml"
    file.write_text("name: x\ndependencies: [python, scipy>=1, pip, {pip: [cowsay]}]\n")
    line = conda_commands.read(["env", "update", "-f", str(file)])
    assert conda_commands.update(shared, line) == 1
    [made] = offered(tmp_path)
    assert (made["add"], made["pip"]) == (["python", "scipy>=1"], ["cowsay"])
    file.write_text("numpy\n")
    line = conda_commands.read(["install", "--file", str(file)])
    assert conda_commands.install(shared, line) == 1
    assert offered(tmp_path)[1]["add"] == ["numpy"]
    for text in ("", "[" * 5000, "a: b: c", "dependencies: x", "- a"):
        file.write_text(text)
        with pytest.raises(conda_commands.Refused):
            conda_commands.update(shared, conda_commands.read(["env", "update", "-f", str(file)]))


def test_what_r_cannot_install_is_offered_by_condas_name(shared: str, tmp_path: Path) -> None:
    """Kind: install.packages, where R would offer a library in the home."""
    Path(shared, "lib/R/library/stats").mkdir(parents=True)
    assert packages.main(["r", shared, "stats", "ggplot2"]) == 1
    assert [one["add"] for one in offered(tmp_path)] == [["r-ggplot2"]]
    assert packages.main(["r", shared, "stats"]) == 0


def test_every_sentence_is_there_in_both_languages() -> None:
    texts = catalogue("en"), catalogue("zh_CN")
    assert texts[0].keys() == texts[1].keys()


# What was changed since it was built ---------------------------------------------------------


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A personal environment with numpy of conda's and tomli of pip's."""
    prefix = tmp_path / "home/.conda/envs/mine"
    distribution(prefix, "numpy", "2.1.0")
    distribution(prefix, "tomli", "2.0")
    meta = prefix / "conda-meta/labcommons"
    meta.mkdir(parents=True)
    (prefix / "conda-meta/numpy-2.1.0-py0.json").write_text('{"name": "numpy"}')
    components = [
        {"purl": "pkg:conda/numpy@2.1.0?build=py0"},
        {"purl": "pkg:pypi/numpy@2.1.0"},
        {"purl": "pkg:pypi/tomli@2.0"},
    ]
    (meta / "sbom.cdx.json").write_text(json.dumps({"components": components}))
    facts = {"name": "mine", "version": "1", "lock_digest": "ab"}
    (meta / "version.json").write_text(json.dumps(facts))
    return prefix


def test_a_drift_from_the_lock_is_in_the_citation(built: Path) -> None:
    """Kind: what pip or conda did to an environment after it was built."""
    assert current.current(str(built))["changes"] == {}
    distribution(built, "cowsay", "6.1")
    (built / "lib/python3.13/site-packages/tomli-2.0.dist-info").rename(built / "gone")
    found = current.current(str(built))
    assert found["changes"] == {"pip": {"cowsay": [None, "6.1"], "tomli": ["2.0", None]}}
    assert "changed since by hand: cowsay 6.1, without tomli)" in found["citation"]


def test_a_package_that_conda_changed_is_said_once(built: Path) -> None:
    meta = built / "conda-meta"
    (meta / "numpy-2.1.0-py0.json").rename(meta / "numpy-2.2.0-py0.json")
    site = built / "lib/python3.13/site-packages"
    (site / "numpy-2.1.0.dist-info").rename(site / "numpy-2.2.0.dist-info")
    (site / "numpy-2.2.0.dist-info/METADATA").write_text("Name: numpy\nVersion: 2.2.0\n")
    assert current.changes(str(built)) == {"conda": {"numpy": ["2.1.0", "2.2.0"]}}


def test_what_was_changed_by_hand_comes_along_and_what_is_asked_for_wins() -> None:
    """Kind: a change on top of a drift must not lose the drift."""
    drift = {
        "conda": {"scipy": ["1.0", "1.1"]},
        "pip": {"cowsay": [None, "6.1"], "a-b": [None, "2"], "tomli": ["2.0", None]},
    }
    change = own_environments.with_changes({"pip": ["A_b[x]>=3"]}, drift)
    assert change == {
        "add": ["scipy=1.1"],
        "pip": ["A_b[x]>=3", "cowsay==6.1"],
        "remove": ["tomli"],
    }


# The home ------------------------------------------------------------------------------------


def test_what_is_in_the_home_is_shown_and_moved_aside(tmp_path: Path) -> None:
    """Kind: packages of ~/.local, which would be in every environment of one Python."""
    distribution(tmp_path / ".local", "cowsay", "6.1", "3.11")
    [found] = user_site.look(str(tmp_path))
    assert (found.python, found.packages) == ("3.11", ("cowsay==6.1",))
    aside = Path(user_site.move_aside(str(tmp_path)))
    assert user_site.look(str(tmp_path)) == []
    assert (aside / "python3.11/site-packages/cowsay-6.1.dist-info/METADATA").is_file()


# What stands before pip and venv -------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """A server's parts: a Python that answers, and a pip for who has none."""
    made = tmp_path / "parts"
    (made / "server/bin").mkdir(parents=True)
    answer = made / "server/bin/python"
    answer.write_text(f'#!/bin/sh\necho "$@" >> {made}/asked\nexit $(cat {made}/code)\n')
    answer.chmod(0o755)
    (made / "code").write_text("1")
    (made / "pip/pip").mkdir(parents=True)
    (made / "pip/pip/__init__.py").touch()
    (made / "pip/pip/__main__.py").write_text("import sys; print('spare', *sys.argv[1:])\n")
    return made


def python(parts: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", *words],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(INSIDE), "LABCOMMONS_PARTS": str(parts)},
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_python_m_pip_is_asked_about_first_and_runs_without_one(parts: Path) -> None:
    """Kind: environments without pip, and ``python -m pip`` from wherever it is called."""
    refused = python(parts, "-m", "pip", "install", "cowsay")
    assert (refused.returncode, refused.stdout, refused.stderr) == (1, "", "")
    asked = (parts / "asked").read_text()
    assert asked == f"-I -m kernels.packages pip {sys.base_prefix} install cowsay\n"
    (parts / "code").write_text(str(GO_ON))
    done = python(parts, "-m", "pip", "install", "--user", "cowsay")
    assert done.stdout == "spare install cowsay\n"
    for words in (["list", "--user"], ["config", "--user", "list"], ["install", "uninstall"]):
        assert python(parts, "-m", "pip", *words).stdout == f"spare {' '.join(words)}\n"
    done = python(parts, "-m", "pip", "uninstall", "cowsay")
    assert done.stdout == "spare uninstall cowsay --yes\n"


def test_an_environments_own_pip_is_the_one_that_is_imported(parts: Path, tmp_path: Path) -> None:
    """Kind: programs that import pip, and pip's own children, must get the real one."""
    (tmp_path / "own/pip").mkdir(parents=True)
    (tmp_path / "own/pip/__init__.py").write_text("mine = True\n")
    code = f"import sys; sys.path.append({str(tmp_path / 'own')!r}); import pip; print(pip.mine)"
    assert python(parts, "-c", code).stdout == "True\n"
    assert not (parts / "asked").exists()


@pytest.mark.parametrize(
    "call",
    [
        "import pip; code = pip.main(WORDS)",
        "from pip import main; code = main(WORDS)",
        "from pip._internal import main; code = main(WORDS)",
        "from pip._internal.cli.main import main; code = main(WORDS)",
        "import sys; sys.argv = ['setup.py', *WORDS]; import pip; code = pip.main()",
        "import runpy, sys; sys.argv = ['pip', *WORDS]\n"
        "try: runpy.run_module('pip', run_name='__main__')\n"
        "except SystemExit as end: code = end.code",
    ],
)
def test_a_program_that_calls_pip_is_asked_about_as_the_command_is(parts: Path, call: str) -> None:
    """Kind: ``pip.main([…])`` of cells and setup scripts, in all the forms that there were."""
    real = sysconfig.get_paths()["purelib"]
    code = (
        f"import sys; sys.path.append({real!r}); WORDS = ['install', 'cowsay']; {call}\nprint(code)"
    )
    done = python(parts, "-c", code)
    assert done.stdout.splitlines()[-1:] == ["1"], done.stderr
    asked = (parts / "asked").read_text()
    assert asked == f"-I -m kernels.packages pip {sys.base_prefix} install cowsay\n"
    (parts / "asked").unlink()
    # What changes nothing is pip's own, and what is left to it is done by it.
    shown = python(parts, "-c", code.replace("['install', 'cowsay']", "['--version']"))
    assert shown.stdout.startswith("pip "), shown.stderr
    assert not (parts / "asked").exists()
    (parts / "code").write_text(str(GO_ON))
    # The Python of the tests may be one that its distribution keeps (PEP 668).
    anywhere = "'--user', '--break-system-packages', '--no-index'"
    asked_for = f"['install', {anywhere}, 'no-such-package-at-all']"
    gone_on = python(parts, "-c", code.replace("['install', 'cowsay']", asked_for))
    assert "no-such-package-at-all" in gone_on.stderr
    assert gone_on.stdout.splitlines()[-1:] == ["1"]


def test_a_venv_gets_pip_where_python_cannot_give_it(parts: Path, tmp_path: Path) -> None:
    """Kind: ``python -m venv`` with a Python without ensurepip, which says to use sudo."""
    code = (
        "import sys, importlib.abc\n"
        "class No(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'ensurepip': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, No())\n"
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n, *r: None if n == 'ensurepip' else find(n, *r)\n"
        f"import venv; venv.main([{str(tmp_path / 'v')!r}])\n"
    )
    done = python(parts, "-c", code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("spare install")
    assert (tmp_path / "v/bin/python").exists()


def test_offers_of_a_cell_become_one_for_each_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "config/images/server/lib"))
    import labcommons_packages

    one = json.dumps({"source": "image", "name": "x", "pip": ["a"], "add": [], "remove": []})
    two = json.dumps({"source": "image", "name": "x", "pip": ["a", "b"], "add": [], "remove": []})
    [found] = labcommons_packages.offers(f"{one}\nno json\n[]\n{two}\n")
    assert found["pip"] == ["a", "b"]


def test_an_offer_below_capture_is_shown_by_the_cell_around_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Kind: ``%%capture`` over an install, the first cell of many: it hid the way out."""
    monkeypatch.syspath_prepend(str(ROOT / "config/images/server/lib"))
    monkeypatch.setenv(packages.OFFER, "")
    import labcommons_packages
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell

    shown: list[str] = []

    class Page(DisplayPublisher):  # type: ignore[misc]
        def publish(self, data: dict[str, Any], **_: Any) -> None:
            shown.append(data["text/plain"])

    shell: Any = InteractiveShell()
    shell.kernel, shell.display_pub = None, Page()
    labcommons_packages.load_ipython_extension(shell)
    one = {"source": "image", "name": "x", "pip": ["a"], "add": [], "remove": [], "command": "it"}
    place = os.environ[packages.OFFER]
    shell.run_cell(f"%%capture\nopen({place!r}, 'w').write({json.dumps(one)!r})")
    os.unlink(place)
    assert shown == ["it"]


def test_the_command_of_an_offer_makes_the_same_offer() -> None:
    os.environ["LABCOMMONS_ENVIRONMENT"] = "py313-data:7"
    try:
        for made in (
            Offer("shared", "lab", "", pip=("numpy<2", "x")),
            Offer("image", "py313-data", "7", add=("graphviz",)),
            Offer("team-vision", "t", "", remove=("x",)),
        ):
            import shlex

            words = shlex.split(made.command)
            assert words[:2] == ["labcommons", "env"]
            chosen = own_environments.parser().parse_args(words[2:])
            if chosen.origin:
                assert own_environments._wanted(chosen) == made
    finally:
        del os.environ["LABCOMMONS_ENVIRONMENT"]


def test_an_environments_own_sitecustomize_runs_beside_ours(tmp_path: Path) -> None:
    """Ours stands before it, for fonts; it leaves no trace where there is nothing to mend."""
    (tmp_path / "sitecustomize.py").write_text("import builtins\nbuiltins.mine = __file__\n")
    code = "import sys; print(mine, 'labcommons_fonts' in sys.modules)"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{INSIDE}:{tmp_path}"},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.stderr == ""
    assert said.stdout.split()[1:] == ["False"]


# Programs that an environment of others has -----------------------------------------------------


class Became(Exception):
    """A program took this one's place."""


@pytest.fixture
def with_uv(shared: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of others with uv and poetry, active, in a folder of a project."""
    for name in ("uv", "poetry", "pdm"):
        write_program(Path(shared), name)
    project = tmp_path / "project/src"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    monkeypatch.setenv("CONDA_PREFIX", shared)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)

    def become(program: str, words: list[str], env: dict[str, str]) -> None:
        raise Became(Path(program).name, words[1:], "CONDA_PREFIX" in env)

    monkeypatch.setattr(os, "execve", become)
    return tmp_path / "project"


@pytest.mark.parametrize("words", [["pip", "install", "cowsay"], ["-q", "pip", "sync", "REQ"]])
def test_an_environments_own_uv_is_asked_first(
    with_uv: Path, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "REQ").write_text("cowsay\n")
    words = [str(tmp_path / word) if word == "REQ" else word for word in words]
    assert absent.answer("uv", words) == 1
    assert [made["pip"] for made in offered(tmp_path)] == [["cowsay"]]


@pytest.mark.parametrize(
    ("name", "words", "in_environment"),
    [
        ("uv", ["pip", "list"], True),
        ("uv", ["pip", "install", "-p", "/mine", "cowsay"], True),
        ("uv", ["pip", "install", "--target", "x", "cowsay"], True),
        ("uv", ["add", "cowsay"], True),
        ("uv", ["venv"], True),
        ("uv", ["run", "pip", "install", "cowsay"], True),
        ("poetry", ["add", "cowsay"], False),
        ("pdm", ["add", "cowsay"], False),
    ],
)
def test_all_else_is_done_by_the_real_one(
    with_uv: Path, name: str, words: list[str], in_environment: bool
) -> None:
    with pytest.raises(Became) as became:
        absent.answer(name, words)
    assert became.value.args == (name, words, in_environment)


@pytest.mark.parametrize("real", [True, False])
def test_uv_pip_takes_a_venv_of_the_project_before_an_environment_of_others(
    with_uv: Path, shared: str, monkeypatch: pytest.MonkeyPatch, real: bool
) -> None:
    """Kind: ``uv venv``, then ``uv pip install``, as uv's own pages say it."""
    (with_uv / ".venv").mkdir()
    (with_uv / ".venv/pyvenv.cfg").touch()
    monkeypatch.setattr(packages, "is_own", lambda prefix: prefix != shared)
    if not real:
        Path(shared, "bin/uv").unlink()
        monkeypatch.setattr(os, "execvp", lambda *words: os.execve(*words, {}))
    with pytest.raises(Became) as became:
        absent.answer("uv", ["pip", "install", "cowsay"])
    name, words = ("uv", ["pip", "install", "cowsay"]) if real else ("pip", ["install", "cowsay"])
    assert became.value.args == (name, words, False)


BEGIN = "import asyncio, nbclient, nbformat\nn = nbformat.v4.new_notebook()\n"
BEGIN += "n.metadata.kernelspec = {'name': 'foo', 'display_name': 'foo'}\n"
CATCH = """
from jupyter_client.kernelspec import NoSuchKernel
try:
    nbclient.execute(n)
except NoSuchKernel as error:
    print(error.name)
1 / 0
"""


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("", "nbclient.NotebookClient(n, kernel_name='foo').execute()"),
        ("", "asyncio.run(nbclient.NotebookClient(n).async_execute())"),
        ("-mIPython", "nbclient.execute(n)"),
    ],
)
def test_nbclient_in_a_script_ends_with_one_sentence_where_there_is_no_such_kernel(
    inside: dict[str, str], program: str, code: str
) -> None:
    """Kind: programs that people write with nbclient; they end as Jupyter's own."""
    done = in_environment(inside, *program.split(), "-c", BEGIN + code)
    said = (done.stdout + done.stderr).splitlines()
    assert (done.returncode, said) == (1, [f"NoSuchKernel: {NEAREST}"]), done


def test_a_script_that_expects_an_unknown_kernel_has_the_error_and_all_others_in_full(
    inside: dict[str, str],
) -> None:
    done = in_environment(inside, "-c", BEGIN + CATCH)
    assert (done.returncode, done.stdout) == (1, "foo\n"), done
    assert done.stderr.startswith("Traceback")
    assert "ZeroDivisionError" in done.stderr


NEAREST = "There is no kernel “foo” here. The nearest is “lab”."


@pytest.fixture
def inside(tmp_path: Path) -> dict[str, str]:
    """The variables of an environment's Python; what knows the kernels is a stand-in."""
    answer = json.dumps({"name": "", "sentence": NEAREST})
    ours = write_program(tmp_path / "server", "python")
    ours.write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    return {
        "HOME": str(tmp_path),
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(INSIDE),
        "LABCOMMONS_PARTS": str(tmp_path),
    }


def in_environment(variables: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], env=variables, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip

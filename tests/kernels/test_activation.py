"""The variables of an activated environment."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from kernels import activation, beside
from kernels.activation import UNSET, ActivationError, Activator, static_variables
from kernels.terminal import Found, activate

BASE = {"PATH": "/usr/bin:/bin", "HOME": "/home/alice"}


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    folder = tmp_path / "envs/lab"
    (folder / "conda-meta").mkdir(parents=True)
    (folder / "etc/conda/env_vars.d").mkdir(parents=True)
    (folder / "etc/conda/activate.d").mkdir(parents=True)
    return folder


def script(prefix: Path, text: str, name: str = "a.sh") -> Path:
    file = prefix / "etc/conda/activate.d" / name
    file.write_text(text)
    return file


def state(prefix: Path, **variables: object) -> None:
    (prefix / "conda-meta/state").write_text(json.dumps({"env_vars": variables}))


def package_variables(prefix: Path, text: str, name: str = "a.json") -> None:
    (prefix / "etc/conda/env_vars.d" / name).write_text(text)


def test_condas_own_variables_are_set(prefix: Path) -> None:
    seen = static_variables(str(prefix), BASE)
    assert seen == BASE | {
        "PATH": f"{prefix}/bin:/usr/bin:/bin",
        "CONDA_PREFIX": str(prefix),
        "CONDA_DEFAULT_ENV": "lab",
        "CONDA_SHLVL": "1",
        "CONDA_PROMPT_MODIFIER": "(lab) ",
    }


def test_an_environment_outside_envs_is_called_by_its_path(tmp_path: Path) -> None:
    assert static_variables(str(tmp_path), BASE)["CONDA_DEFAULT_ENV"] == str(tmp_path)


def test_what_points_python_elsewhere_is_dropped(prefix: Path) -> None:
    base = BASE | {"PYTHONHOME": "/x", "PYTHONPATH": "/x", "VIRTUAL_ENV": "/x"}
    assert not {"PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"} & set(
        Activator().activate(str(prefix), base)
    )


def test_the_persons_variables_win_over_the_packages_and_unset_ones_go(prefix: Path) -> None:
    package_variables(prefix, '{"A": "package", "B": "package", "C": "package"}')
    state(prefix, A="person", B=UNSET)
    seen = static_variables(str(prefix), BASE)
    assert (seen["A"], seen["C"]) == ("person", "package")
    assert "B" not in seen


@pytest.mark.parametrize("value", ["x$(touch {0})y", "`touch {0}`", "$PATH ${{HOME}}", "a'b\"c\n"])
def test_values_are_data_and_never_run(prefix: Path, tmp_path: Path, value: str) -> None:
    value = value.format(tmp_path / "made")
    package_variables(prefix, json.dumps({"A": value}))
    state(prefix, B=value)
    script(prefix, "export SEEN=$A")
    seen = Activator().activate(str(prefix), BASE)
    assert (seen["A"], seen["B"], seen["SEEN"]) == (value, value, value)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"A": 1}', '{"A B": "x"}', '{"A": "x\\u0000y"}', '{"PATH": "/evil"}']
)
def test_a_file_that_sets_no_usable_variable_sets_none(prefix: Path, text: str) -> None:
    package_variables(prefix, text)
    assert static_variables(str(prefix), BASE).keys() == static_variables("/envs/x", BASE).keys()
    assert "/evil" not in static_variables(str(prefix), BASE)["PATH"]


def test_scripts_act_in_order_and_may_print_and_fail(prefix: Path) -> None:
    script(prefix, "echo noise; echo noise >&2; export A=1 B=gone; false", "10.sh")
    script(prefix, "nonsense-command; export A=${A}2; unset B HOME", "20.sh")
    seen = Activator().activate(str(prefix), BASE)
    assert seen["A"] == "12"
    assert not {"B", "HOME"} & set(seen)


def test_a_script_sees_the_environment_activated_and_no_arguments(prefix: Path) -> None:
    script(prefix, 'export SEEN="$CONDA_PREFIX $# ${PATH%%:*}"')
    seen = Activator().activate(str(prefix), BASE)
    assert seen["SEEN"] == f"{prefix} 0 {prefix}/bin"


def test_values_with_newlines_and_bytes_that_are_no_utf8_arrive_whole(prefix: Path) -> None:
    script(prefix, "export A=$'one\\ntwo=2' B=$'\\xff'")
    seen = Activator().activate(str(prefix), BASE)
    assert seen["A"] == "one\ntwo=2"
    assert os.fsencode(seen["B"]) == b"\xff"


def test_the_shells_own_variables_stay_out(prefix: Path) -> None:
    script(prefix, "f() { :; }; export -f f; export A=1")
    seen = Activator().activate(str(prefix), BASE)
    assert seen.keys() - static_variables(str(prefix), BASE).keys() == {"A"}


def test_a_script_that_hangs_is_killed_with_all_it_started(prefix: Path, tmp_path: Path) -> None:
    script(prefix, f"sleep 1000 & echo $! > {tmp_path}/pid; echo $$ > {tmp_path}/shell; wait")
    with pytest.raises(ActivationError, match=r"activate\.d did not end within 1 s"):
        Activator().activate(str(prefix), BASE, timeout=1)
    assert not is_running((tmp_path / "pid").read_text().strip())
    assert not is_running((tmp_path / "shell").read_text().strip())


def is_running(pid: str) -> bool:
    """Whether a process goes on; one that is killed may need a moment to be gone."""
    for _ in range(500):
        shown = subprocess.run(
            ["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True, check=False
        ).stdout.strip()
        if not shown or shown.startswith("Z"):
            return False
        time.sleep(0.01)
    return True


def test_a_script_that_ends_the_shell_is_named(prefix: Path) -> None:
    script(prefix, "exit 0")
    with pytest.raises(ActivationError, match="ends the shell"):
        Activator().activate(str(prefix), BASE)


def test_a_background_process_does_not_hold_the_activation_up(prefix: Path, tmp_path: Path) -> None:
    script(prefix, f"sleep 1000 & echo $! > {tmp_path}/pid; export A=1")
    assert Activator().activate(str(prefix), BASE, timeout=60)["A"] == "1"
    subprocess.run(["kill", (tmp_path / "pid").read_text().strip()], check=True)


def test_scripts_run_once_until_one_changes(prefix: Path, tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counted = script(prefix, f"echo >> {counter}; export A=1")
    activator = Activator()
    for session in ("one", "two"):
        base = BASE | {"JPY_SESSION_NAME": session}
        assert activator.activate(str(prefix), base)["JPY_SESSION_NAME"] == session
    assert counter.read_text() == "\n"
    counted.write_text(f"echo >> {counter}; export A=22")
    assert activator.activate(str(prefix), BASE)["A"] == "22"


def test_without_scripts_no_shell_is_started(prefix: Path, monkeypatch) -> None:
    monkeypatch.setattr(activation, "run_scripts", None)
    assert Activator().activate(str(prefix), BASE)["CONDA_PREFIX"] == str(prefix)


# What people's tools put beside an environment that is not theirs -----------------------------


@pytest.fixture
def theirs(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of others with npm, uv, poetry and conda's Julia."""
    (prefix / "bin").mkdir()
    for name in ("npm", "uv", "poetry", "julia"):
        (prefix / "bin" / name).touch(0o755)
    script(
        prefix,
        'export JULIA_DEPOT_PATH="$CONDA_PREFIX/share/julia:$JULIA_DEPOT_PATH"\n'
        'export JULIA_PROJECT="@lab" JULIA_LOAD_PATH="@:@lab:@stdlib"\n',
        "julia.sh",
    )
    monkeypatch.setattr(beside, "is_own", lambda found: found != str(prefix))
    monkeypatch.setattr(beside, "environment_of", lambda _: ("shared", "lab"))
    return prefix


BESIDE = "/home/alice/.local/share/labcommons/beside/shared/lab"


def test_beside_an_environment_of_others_is_a_folder_for_what_a_person_adds(theirs: Path) -> None:
    """Kind: npm -g, Pkg.add, uv and poetry where nothing can be written; none comes first."""
    seen = Activator().activate(str(theirs), BASE)
    front = "/opt/labcommons/front"
    assert seen["PATH"].split(":") == [
        f"{front}/uv", f"{front}/poetry", f"{theirs}/bin", f"{BESIDE}/npm/bin", "/usr/bin", "/bin",
    ]  # fmt: skip
    assert seen["NPM_CONFIG_PREFIX"] == f"{BESIDE}/npm"
    assert seen["JULIA_DEPOT_PATH"] == f"{BESIDE}/julia:{theirs}/share/julia:"
    own = f"{BESIDE}/julia/environments/own/Project.toml"
    assert (seen["JULIA_PROJECT"], seen["JULIA_LOAD_PATH"]) == (own, f"@:{own}:@lab:@stdlib")
    left = activation.without_active(seen)
    assert left["PATH"] == BASE["PATH"]
    assert "NPM_CONFIG_PREFIX" not in left


def test_ones_own_environment_has_nothing_beside_it(
    theirs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "is_own", lambda _: True)
    seen = Activator().activate(str(theirs), BASE)
    assert seen["PATH"] == f"{theirs}/bin:/usr/bin:/bin"
    assert seen["JULIA_PROJECT"] == "@lab"
    assert "NPM_CONFIG_PREFIX" not in seen


def test_where_a_person_says_where_npm_installs_it_does(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / ".npmrc").write_text("audit=false\n prefix = ~/mine\n")
    seen = static_variables(str(theirs), BASE | {"HOME": str(tmp_path)})
    assert "NPM_CONFIG_PREFIX" not in seen
    mine = BASE | {"NPM_CONFIG_PREFIX": "/mine"}
    assert static_variables(str(theirs), mine)["NPM_CONFIG_PREFIX"] == "/mine"


def test_a_shell_that_sources_julias_script_itself_has_the_same(theirs: Path) -> None:
    words = activate(Found("shared", "lab", str(theirs)), BASE)
    show = 'echo "$PATH|$NPM_CONFIG_PREFIX|$JULIA_DEPOT_PATH|$JULIA_PROJECT|$JULIA_LOAD_PATH"'
    shown = subprocess.check_output(["bash", "-c", f"{words}\n{show}"], env=BASE, text=True)
    seen = Activator().activate(str(theirs), BASE)
    names = ("PATH", "NPM_CONFIG_PREFIX", "JULIA_DEPOT_PATH", "JULIA_PROJECT", "JULIA_LOAD_PATH")
    assert shown.strip() == "|".join(seen[name] for name in names)

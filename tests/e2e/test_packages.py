"""Packages as people are used to them: from a notebook and a terminal to one's own environment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NewPage
from deployment import Deployment
from people import log_in, open_notebook, picture, run_cell
from playwright.sync_api import Page, expect
from test_scopes import CONSOLE, ask, build, finished, sh

SHARED = "common (shared) - Python 3.13"
MINE = "common (personal) - Python 3.13"


@pytest.fixture(scope="module")
def tokens(deployment: Deployment) -> dict[str, str]:
    return {name: deployment.login_once(name) for name in ("alice", "carol")}


@pytest.fixture(scope="module")
def server(deployment: Deployment, tokens: dict[str, str]) -> Iterator[str]:
    """alice's running server, and an environment for everybody; her own copies are new."""
    deployment.stop_all_servers(tokens["carol"])
    done = build(deployment, tokens["carol"], "shared", "common")
    assert done["build"]["state"] == "done", done["log"] + done["build"]["message"]
    status, asked = deployment.api(
        "DELETE", "environments/personal/common", tokens["alice"], of=CONSOLE
    )
    if status == 202:  # of an earlier run
        finished(deployment, tokens["alice"], asked["build"]["id"])
    deployment.start_server(tokens["carol"], "alice", {"environment": "py313-data"})
    [container] = deployment.containers("alice")
    sh(deployment, container, "rm -rf ~/.local/lib ~/*.ipynb")
    yield container
    deployment.stop_all_servers(tokens["carol"])


def outputs(page: Page) -> str:
    return "\n".join(page.locator(".jp-OutputArea-output").all_inner_texts())


def test_from_pip_install_in_a_shared_environment_to_import_in_the_same_notebook(
    deployment: Deployment, server: str, new_page: NewPage, pictures: Path
) -> None:
    """Kind: %pip in a read-only environment: one click, and the notebook goes on in one's own."""
    page = new_page()
    log_in(page, "alice")
    page.goto(deployment.server_url("alice") + "lab?reset")
    open_notebook(page, SHARED)
    begun = time.monotonic()
    said = run_cell(page, "%pip install cowsay")
    assert "labcommons env add --from shared/common cowsay" in said
    button = page.get_by_role("button", name="Make my own copy of “common” with cowsay")
    expect(button).to_be_visible()
    assert "restart the kernel" not in outputs(page)
    picture(page, pictures, "packages-offer")
    button.click()
    expect(page.get_by_text(f"This notebook uses {MINE} now.")).to_be_visible(timeout=180_000)
    expect(page.get_by_text(f"{MINE} | Idle")).to_be_visible()
    said = run_cell(page, "import cowsay, sys; print(sys.prefix, cowsay.__version__)")
    took = time.monotonic() - begun
    print(f"from %pip install to import: {took:.1f} s")
    (pictures / "packages-seconds.txt").write_text(f"{took:.1f}\n")
    assert "/home/alice/.conda/envs/.versions/common/" in said
    picture(page, pictures, "packages-copied")

    # In one's own it installs there, and the citation says that it did.
    run_cell(page, "%pip install tomli-w==1.0.0")
    output = page.locator(".jp-OutputArea-output", has_text="Successfully installed")
    expect(output).to_be_visible(timeout=180_000)
    code = "import labcommons_environment as e; print(e.current()['citation'])"
    run_cell(page, code)
    cited_by_hand = page.get_by_text("changed since by hand: tomli-w 1.0.0)")
    expect(cited_by_hand.first).to_be_visible()
    _, kept = sh(deployment, server, "conda run -n common labcommons env keep")
    assert "tomli-w 1.0.0" in kept
    assert "“common” is ready" in kept
    run_of_both = "conda run -n common python -c 'import cowsay, tomli_w; print(1)'"
    assert sh(deployment, server, run_of_both) == (0, "1")
    _, cited = sh(deployment, server, "conda run -n common labcommons env current --cite")
    assert "by hand" not in cited


IMAGE = "/opt/conda/envs/py313-data"


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("pip install cowsay", 1, "labcommons env add cowsay"),
        ("pip3 install --user cowsay", 1, "labcommons env add cowsay"),
        (f"{IMAGE}/bin/python -m pip install cowsay", 1, "labcommons env add cowsay"),
        ("pip install numpy", 0, "already satisfied"),
        ("pip list", 0, "numpy"),
        ("sh -c 'pip install cowsay'", 1, "labcommons env add cowsay"),
        ("bash -c 'conda activate py313-data && which python'", 0, IMAGE),
        ("bash -c 'source activate py313-data && which python'", 0, IMAGE),
        ("source /opt/conda/bin/activate py313-data && which python", 0, IMAGE),
        (
            ". /opt/conda/etc/profile.d/conda.sh && conda activate py313-data; which python",
            0,
            IMAGE,
        ),
        ('eval "$(conda shell.bash hook)" && conda activate py313-data; which python', 0, IMAGE),
        ("sh -c 'conda activate py313-data'", 1, 'eval "$(conda shell.posix activate py313-data)"'),
        ("sh -c 'conda run -n py313-data which python'", 0, IMAGE),
        ("conda init bash", 0, "Nothing to do"),
        ("conda install -y cowsay", 1, "labcommons env add --conda cowsay"),
        ("sudo apt install -y graphviz", 1, "labcommons env add --conda graphviz"),
        ("poetry --version", 127, "labcommons env add poetry"),
        ("uv pip install cowsay", 1, "labcommons env add cowsay"),
        ("cd /tmp && uv venv && .venv/bin/pip --version", 0, "/tmp/.venv/"),
        ("pipx install cowsay", 127, "labcommons env add cowsay"),
        ("npm i -g typescript", 127, "labcommons env add --conda nodejs"),
        ("nvidia-smi", 127, "has no GPU"),
        ("sudo apt-get install -y git vim", 0, "git, vim"),
        ("bash -ic 'which python'", 0, f"{IMAGE}/bin/python"),
        ("bash -ic 'conda deactivate; which python'", 0, "/opt/labcommons/server/bin/python"),
        ("conda list -n base", 0, "numpy"),
        ("conda config --add channels conda-forge", 0, ""),
        ("conda install torch -c pytorch -c nvidia", 1, "--conda -c pytorch -c nvidia torch"),
        ("cd /tmp && uv venv -p 3.13 x && x/bin/python -V", 0, "Python 3.13"),
        ("python3.9 -m venv v", 127, "conda create -n py39 python=3.9"),
        ("jupyter notebook", 127, "JupyterLab runs already"),
        ("jupyter lab", 1, "JupyterLab runs already"),
        ("cd /tmp && touch one && tar cJf x.xz one && tar cjf x.bz2 one && tar tf x.xz", 0, "one"),
        ("echo cowsay > /tmp/r.txt; pip install -r /tmp/r.txt", 1, "labcommons env add cowsay"),
        ("echo cowsay > /tmp/r.txt; conda install --file /tmp/r.txt", 1, "--conda cowsay"),
        ("pip uninstall -y numpy", 1, "labcommons env remove numpy"),
        ("cd /tmp && python -m venv v && v/bin/pip --version", 0, "/tmp/v/"),
        (f"cd /tmp && {IMAGE}/bin/python -m venv w && w/bin/pip --version", 0, "/tmp/w/"),
        ("cd /tmp && virtualenv u && u/bin/python -c 'import sys; print(sys.prefix)'", 0, "/tmp/u"),
    ],
)
def test_what_tutorials_say_works_or_says_what_to_do(
    deployment: Deployment, server: str, command: str, code: int, words: str
) -> None:
    """Kind: package commands in scripts and shells of every kind, in a real server."""
    ended, said = sh(deployment, server, command)
    assert (ended, words in said) == (code, True), said
    assert "sudo" not in said
    assert "Traceback" not in said


# Stand-ins, as they find where to write: npm, uv, poetry and conda's Julia with its script.
STAND_INS = {
    "bin/npm": 'mkdir -p "$NPM_CONFIG_PREFIX/bin" && cd "$NPM_CONFIG_PREFIX/bin" && '
    "printf '#!/bin/sh\necho ran $0\n' >$3 && chmod +x $3",
    "bin/uv": 'echo "the real uv in ${CONDA_PREFIX:-a project}: $*"',
    "bin/poetry": 'echo "the real poetry in ${CONDA_PREFIX:-a project}: $*"',
    "bin/julia": 'mkdir -p "${JULIA_DEPOT_PATH%%:*}/packages" "${JULIA_PROJECT%/*}" && '
    'echo "[deps]" >"$JULIA_PROJECT" && echo "added to $JULIA_PROJECT"',
    "etc/conda/activate.d/julia.sh": 'export JULIA_DEPOT_PATH="$CONDA_PREFIX/share/julia:"'
    ' JULIA_PROJECT="@${CONDA_PREFIX##*/}" JULIA_LOAD_PATH="@:@${CONDA_PREFIX##*/}:@stdlib"',
}
BESIDE = "/home/alice/.local/share/labcommons/beside/shared/common"
# By its folder: alice has one of this name, too.
COMMON = "/opt/labcommons/shared/envs/common"


@pytest.fixture(scope="module")
def with_tools(deployment: Deployment, server: str) -> str:
    """alice's server, and the environment for everybody with other tools in it."""
    prefix = (deployment.root / "data/shared/envs/common").resolve()
    for name, text in STAND_INS.items():
        file = prefix / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)
    return server


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (f"conda activate {COMMON} && npm install -g tsc && tsc", 0, f"ran {BESIDE}/npm/bin/tsc"),
        (f"conda run -p {COMMON} tsc", 0, f"ran {BESIDE}/npm/bin/tsc"),
        ("conda run -n py313-data tsc", 127, "tsc"),
        (f"conda run -p {COMMON} uv pip install cowsay", 1, "env add --from shared/common cowsay"),
        (f"conda activate {COMMON} && uv pip install numpy", 0, "already satisfied"),
        (f"conda activate {COMMON} && uv pip list", 0, "the real uv in /opt/labcommons/shared"),
        (
            f"cd /tmp && python -m venv .venv && conda activate {COMMON} && uv pip install cowsay",
            0,
            "the real uv in a project: pip install cowsay",
        ),
        (f"conda run -p {COMMON} uv sync", 0, "the real uv in /opt/labcommons/shared"),
        (f"conda activate {COMMON} && poetry add cowsay", 0, "poetry in a project: add cowsay"),
        (
            f"conda run -p {COMMON} julia",
            0,
            f"added to {BESIDE}/julia/environments/own/Project.toml",
        ),
        (f"conda activate {COMMON} && julia", 0, f"added to {BESIDE}/julia/environments/own"),
        (
            f"conda activate {COMMON} && conda deactivate && env",
            0,
            "PATH=/opt/labcommons/server/bin",
        ),
    ],
)
def test_tools_that_an_environment_of_others_has_do_what_a_person_expects(
    deployment: Deployment, with_tools: str, command: str, code: int, words: str
) -> None:
    """Kind: real programs that would write into what cannot be written."""
    ended, said = sh(deployment, with_tools, command)
    assert (ended, words in said) == (code, True), said
    assert "Traceback" not in said


def test_no_environment_takes_anything_from_the_home(deployment: Deployment, server: str) -> None:
    """Kind: ~/.local, which would be in every environment of one Python."""
    place = "~/.local/lib/python3.13/site-packages"
    put = f"mkdir -p {place}/x-1.dist-info && echo 'raise SystemExit(9)' > {place}/numpy.py"
    name = f"printf 'Name: x\\nVersion: 1\\n' > {place}/x-1.dist-info/METADATA"
    assert sh(deployment, server, f"{put}; {name}; {IMAGE}/bin/python -c 'import numpy'")[0] == 0
    assert "x==1" in sh(deployment, server, "labcommons env local")[1]
    assert sh(deployment, server, "labcommons env local --aside")[0] == 0
    assert sh(deployment, server, "labcommons env local")[1] == "Nothing is left in ~/.local."


def test_images_have_not_drifted_and_conda_answers_programs_with_json(
    deployment: Deployment, server: str
) -> None:
    _, said = sh(deployment, server, "labcommons env current --json")
    assert (json.loads(said)["changes"], json.loads(said)["mixed_in"]) == ({}, None)
    _, said = sh(deployment, server, "conda info --json")
    assert IMAGE in json.loads(said)["envs"]


def test_an_environment_is_changed_on_the_page_kept_and_corrected(
    deployment: Deployment, tokens: dict[str, str], server: str, new_page: NewPage, pictures: Path
) -> None:
    """Kind: environments that can be changed: what was done by hand, a diff, a new version that is
    used at once, a text that failed, a kernel that is missing."""
    asked = ask(
        deployment, tokens["alice"], "POST", "environments/image/py313-data/derive",
        {"add": ["pip"], "name": "study"},
    )  # fmt: skip
    done = finished(deployment, tokens["alice"], asked["build"]["id"])
    assert done["build"]["state"] == "done", done["log"] + done["build"]["message"]
    run = "conda run -n study"
    assert sh(deployment, server, f"{run} pip install -q tomli-w==1.0.0")[0] == 0
    _, said = sh(deployment, server, f"{run} labcommons env current")
    assert "labcommons env keep" in said
    assert "changed since by hand: tomli-w 1.0.0" in said

    page = new_page()
    log_in(page, "alice")
    page.goto("/services/labcommons/environments")
    builds = page.get_by_role("region", name="Builds")
    study = page.locator("[data-environment='personal/study']")
    # A page that is opened looks at the home, and says that there is something new.
    page.get_by_role("button", name="Show the new list").click()
    expect(study.get_by_text("Changed by hand since it was built: tomli-w 1.0.0")).to_be_visible()
    study.get_by_role("button", name="Keep").click()
    reload = builds.get_by_role("button", name="Show it in the list: study")
    expect(reload).to_be_visible(timeout=180_000)
    reload.click()
    expect(study.get_by_text("older ones: 1")).to_be_visible()
    assert "by hand" not in sh(deployment, server, f"{run} labcommons env current --cite")[1]

    study.get_by_role("button", name="Change study").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Add packages").fill("cowsay")
    dialog.get_by_role("button", name="Show what will change").click()
    expect(dialog.locator("#edit-diff").get_by_text("+  - cowsay", exact=True)).to_be_visible()
    picture(page, pictures, "environment-changed")
    dialog.get_by_role("button", name="Build", exact=True).click()
    expect(reload).to_be_visible(timeout=180_000)
    reload.click()
    expect(study.get_by_text("older ones: 2")).to_be_visible()
    assert sh(deployment, server, f"{run} python -c 'import cowsay, tomli_w'") == (0, "")

    # In a terminal, in an editor.
    words = ("env", "edit", "personal/study", "--user", "alice", "--editor", "--yes")
    deployment.edited("s/cowsay/six/", *words)
    assert sh(deployment, server, f"{run} python -c 'import six'") == (0, "")

    # What cannot be built is corrected; a kernel that is missing is one click.
    page.get_by_text("Build an environment", exact=True).click()
    text = "name: bare\nchannels: [conda-forge]\ndependencies:\n  - python 3.13.*\n  - numpyy\n"
    page.get_by_label("Contents of environment.yml", exact=True).first.fill(text)
    page.locator("#new-form").get_by_role("button", name="Build", exact=True).click()
    correct = builds.get_by_role("button", name="Correct the text…: bare")
    expect(correct).to_be_visible(timeout=180_000)
    expect(builds.get_by_role("button", name="Try again: bare")).to_have_count(0)
    picture(page, pictures, "environment-failed")
    correct.click()
    written = dialog.get_by_label("Contents of environment.yml")
    expect(written).to_have_value(text)
    written.fill(text.replace("numpyy", "numpy"))
    dialog.get_by_role("button", name="Show what will change").click()
    dialog.get_by_role("button", name="Build", exact=True).click()
    add = builds.get_by_role("button", name="Add ipykernel and build: bare")
    add.click(timeout=180_000)
    expect(builds.get_by_role("button", name="Show it in the list: bare")).to_be_visible(
        timeout=180_000
    )
    assert sh(deployment, server, "conda run -n bare python -c 'import numpy, ipykernel'")[0] == 0
    for name in ("study", "bare"):
        gone = ask(deployment, tokens["alice"], "DELETE", f"environments/personal/{name}")
        finished(deployment, tokens["alice"], gone["build"]["id"])

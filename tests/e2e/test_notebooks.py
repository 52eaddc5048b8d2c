"""Notebooks with widgets, and notebooks made elsewhere, in an environment of a person's own."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NewPage
from deployment import Deployment
from people import log_in, open_notebook, picture, run_cell
from playwright.sync_api import Page, expect
from test_scopes import build, sh

SHOWN = "wide (personal) - Python 3.13"
SPEC = textwrap.dedent(
    """\
    name: NAME
    channels: [conda-forge]
    dependencies:
      - python 3.13.*
      - ipykernel
      - ipywidgets
      - tqdm
      - anywidget
      - ipympl
      - plotly
      - papermill
      - nbconvert
      - jupytext
    """
)
# An environment, later in the list, with ipywidgets 7 and another anywidget, and the Python of the
# first; and a front end that nobody can read, in the first.
CLASH = """
wide=~/.conda/envs/wide; old=~/.conda/envs/xold; here=share/jupyter
mkdir -p $old/conda-meta $old/bin $old/$here/kernels/python3 $wide/$here/labextensions/broken
touch -d yesterday $old/conda-meta/history
printf '#!/bin/sh\\nexec %s/bin/python "$@"\\n' $wide > $old/bin/python && chmod +x $old/bin/python
printf '{"argv": ["%s/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
  "display_name": "Python 3", "language": "python"}' $old > $old/$here/kernels/python3/kernel.json
for one in @jupyter-widgets/jupyterlab-manager:3.1.11 anywidget:0.0.1; do
  to=$old/$here/labextensions/${one%:*}; mkdir -p $to/static; touch $to/static/remoteEntry.1.js
  printf '{"name": "%s", "version": "%s", "jupyterlab": {"extension": true, "_build":
    {"load": "static/remoteEntry.1.js", "extension": "./extension"}}}' ${one%:*} ${one#*:} \\
    > $to/package.json
done
echo '{' > $wide/$here/labextensions/broken/package.json
"""
SLIDER = """
import ipywidgets as w
slider, told = w.IntSlider(value=3, description="hello"), w.Label()
slider.observe(lambda change: setattr(told, "value", f"moved to {change['new']}"), "value")
w.VBox([slider, told])
"""
COUNTER = """
import anywidget, traitlets
class Counter(anywidget.AnyWidget):
    _esm = '''export default { render({ model, el }) {
      const button = document.createElement("button");
      button.className = "my-counter";
      const draw = () => { button.textContent = "count is " + model.get("n"); };
      button.onclick = () => { model.set("n", model.get("n") + 1); model.save_changes(); };
      model.on("change:n", draw); draw(); el.append(button);
    } }'''
    n = traitlets.Int(0).tag(sync=True)
counter = Counter(); counter
"""
MISSING = """
class Missing(w.DOMWidget):
    _model_module = traitlets.Unicode("bqplot").tag(sync=True)
    _view_module = traitlets.Unicode("bqplot").tag(sync=True)
    _model_name = traitlets.Unicode("Model").tag(sync=True)
    _view_name = traitlets.Unicode("View").tag(sync=True)
Missing()
"""


@pytest.fixture(scope="module")
def server(deployment: Deployment, admin: str) -> Iterator[str]:
    """alice's running server, and her own environment."""
    token = deployment.login_once("alice")
    deployment.stop_all_servers(admin)
    done = build(deployment, token, "personal", "wide", SPEC)
    assert done["build"]["state"] == "done", done["log"] + done["build"]["message"]
    deployment.start_server(token, "alice", {"environment": "py313-data"})
    [container] = deployment.containers("alice")
    assert sh(deployment, container, f"rm -rf ~/.conda/envs/xold ~/*.ipynb\n{CLASH}") == (0, "")
    yield container
    sh(deployment, container, "rm -rf ~/.conda/envs/xold ~/*.ipynb")
    deployment.stop_all_servers(admin)


def in_cell(page: Page, code: str) -> None:
    page.locator(".jp-Notebook .jp-CodeCell .cm-content").last.click()
    page.keyboard.insert_text(code)
    page.keyboard.press("Shift+Enter")


def test_widgets_of_an_environment_are_shown_and_answer(
    deployment: Deployment, server: str, new_page: NewPage, pictures: Path
) -> None:
    """Kind: everything whose browser part comes with the kernel's environment: ipywidgets, tqdm,
    anywidget, ipympl, plotly; what has none, another version or a broken one says so.
    """
    page = new_page()
    log_in(page, "alice")
    page.goto(deployment.server_url("alice") + "lab?reset")
    open_notebook(page, SHOWN)
    in_cell(page, SLIDER)
    handle = page.locator(".widget-slider .noUi-handle")
    expect(handle).to_be_visible()
    handle.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("moved to 4")).to_be_visible()  # Python has run
    in_cell(page, "from tqdm.notebook import tqdm\nfor _ in tqdm(range(5), desc='steps'): pass")
    expect(page.get_by_text("5/5")).to_be_visible()
    expect(page.locator(".widget-hprogress .progress-bar")).to_be_visible()
    in_cell(page, COUNTER)
    button = page.locator(".my-counter")
    button.click()
    expect(button).to_have_text("count is 1")
    assert run_cell(page, "print(counter.n)").strip() == "1"
    in_cell(
        page, "%matplotlib widget\nimport matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()"
    )
    expect(page.locator(".jupyter-matplotlib canvas").first).to_be_visible()
    in_cell(page, "import plotly.graph_objects as go; go.Figure(go.Bar(y=[1, 2])).show()")
    expect(page.locator(".js-plotly-plot .bars").first).to_be_visible()
    in_cell(page, MISSING)
    told = page.locator(".labcommons-missing-front-end")
    expect(told).to_contain_text(f"Add “bqplot” to the environment {SHOWN}")
    picture(page, pictures, "widgets")

    # One that is broken is left out, with its reason; and a kernel of other versions is told of.
    _, report = sh(
        deployment,
        server,
        'curl -s -H "Authorization: token $JUPYTERHUB_API_TOKEN" '
        "localhost:8888/user/alice/labcommons/front-ends",
    )
    found = json.loads(report)
    assert [one["name"] for one in found["refused"]] == ["broken"]
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name="New Launcher").click()
    page.locator(".jp-LauncherCard:visible", has_text="xold (personal)").first.click()
    clash = page.locator(".Toastify__toast", has_text="0.0.1: its widgets may not work")
    expect(clash).to_contain_text("This page has anywidget")
    expect(
        page.locator(".Toastify__toast", has_text="put “ipywidgets >=8” into it")
    ).to_be_visible()
    picture(page, pictures, "widgets-clash")


NOTEBOOK = {
    "cells": [
        {
            "cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None,
            "source": "import sys; print('ran in', sys.prefix)",
        }
    ],
    "metadata": {},
    "nbformat": 4,
    "nbformat_minor": 5,
}  # fmt: skip
UNKNOWN = {"kernelspec": {"name": "firefly", "display_name": "x", "language": "python"}}
MINE, IMAGE = "/home/alice/.conda/envs/", "/opt/conda/envs/py313-data"
NEAREST = "There is no kernel “firefly” here. The nearest is"
# Typed without an environment ("") or in one's own; what is in the answer; whether it works.
TYPED = (
    ("", "jupyter nbconvert --to notebook --execute --stdout none.ipynb", f"ran in {IMAGE}", True),
    ("", "jupyter execute firefly.ipynb", NEAREST, False),
    ("", "jupyter run firefly.ipynb", "jupyter execute firefly.ipynb", False),
    ("", "jupyter run nowhere.py", "nowhere.py cannot be read", False),
    ("", "jupyter nbconvert none.ipynb --to pdf", "export HTML", False),
    ("wide", "papermill none.ipynb -", f"ran in {MINE}", True),
    ("wide", "papermill firefly.ipynb out.ipynb", NEAREST, False),
    ("wide", "papermill -k firefly none.ipynb out.ipynb", NEAREST, False),
    ("wide", "jupyter nbconvert --to notebook --execute --stdout firefly.ipynb", NEAREST, False),
    ("wide", "jupytext --to ipynb --execute -o - s.py", f"ran in {MINE}", True),
    ("wide", "jupytext --to ipynb --execute --set-kernel firefly -o - s.py", NEAREST, False),
    ("wide", "jupyter run --kernel python3 s.py", f"ran in {MINE}", True),
    ("wide", "jupyter run --kernel firefly s.py", NEAREST, False),
    ("wide", "python client.py", NEAREST, False),
    ("", "jupyter run --kernel registered limits.py", "registered 1000 (0, 0)", True),
    ("", "jupyter run --kernel julia-1.11 limits.py", "registered 1000 (0, 0)", True),
    ("", "jupyter run --kernel ir limits.py", "registered 1000 (0, 0)", True),
    ("", "labcommons kernels list", "Julia 1.11 (registered by you)", True),
    ("", "labcommons kernels list", "R (registered by you)", True),
)
# Stand-ins: IJulia and IRkernel as they register themselves, of programs that are Python's kernel.
OTHERS = r"""
k=~/.local/share/jupyter/kernels; j=~/.juliaup/bin/julia; r=~/.local/bin/R
mkdir -p $k/julia-1.11 $k/ir ${j%/*} ${r%/*}
printf '#!/bin/sh\nshift 3; exec ~/.conda/envs/wide/bin/python -m ipykernel_launcher -f "$1"\n' > $j
printf '#!/bin/sh\nshift 4; exec ~/.conda/envs/wide/bin/python -m ipykernel_launcher -f "$1"\n' > $r
chmod +x $j $r
printf '{"argv": ["%s", "-i", "--color=yes", "kernel.jl", "{connection_file}"],
  "display_name": "Julia 1.11", "language": "julia", "interrupt_mode": "signal"}' $j \
  > $k/julia-1.11/kernel.json
printf '{"argv": ["R", "--slave", "-e", "IRkernel::main()", "--args", "{connection_file}"],
  "display_name": "R", "language": "R"}' > $k/ir/kernel.json
"""
# A page asks for the list; what is new in it is there for other programs a moment later.
LISTED = """
curl -sf -o /dev/null -H "Authorization: token $JUPYTERHUB_API_TOKEN" \\
  localhost:8888/user/alice/api/kernelspecs || exit
for n in $(seq 300); do
  [ -e /tmp/labcommons/kernels/registered ] && [ -e /tmp/labcommons/kernels/ir ] && exit; sleep .1
done; exit 1
"""


def test_notebooks_of_elsewhere_run_or_say_why_not_in_every_program(
    deployment: Deployment, server: str
) -> None:
    """Kind: kernelspecs of elsewhere, none, or unknown, by each program of the server and of a
    person's own environment; and a kernel that the person registered, within the limits.
    """
    limits = (
        "import resource\n"
        "own = open('/proc/self/oom_score_adj').read().strip()\n"
        "print('registered', own, resource.getrlimit(resource.RLIMIT_CORE))"
    )
    files = {
        "none.ipynb": json.dumps(NOTEBOOK),
        "firefly.ipynb": json.dumps({**NOTEBOOK, "metadata": UNKNOWN}),
        "s.py": "import sys\nprint('ran in', sys.prefix)\n",
        "limits.py": limits,
        "client.py": "import nbclient, nbformat\n"
        "nbclient.execute(nbformat.read('firefly.ipynb', 4))\n",
    }
    write = "\n".join(f"cat > ~/t/{name} <<'END'\n{text}\nEND" for name, text in files.items())
    conda = "conda run -n wide"
    register = f"{conda} python -m ipykernel install --user --name registered"
    ready = f"mkdir -p ~/t\n{write}\n{OTHERS}\n{register} >/dev/null 2>&1\n{LISTED}"
    assert sh(deployment, server, ready)[0] == 0
    wrong = []
    for environment, typed, words, works in TYPED:
        enter = f"conda activate {environment}; " if environment else ""
        path = "JUPYTER_PATH=/tmp/labcommons:$JUPYTER_PATH"
        code, said = sh(deployment, server, f"export {path}; cd ~/t; {enter}{typed}")
        if (code == 0, words in said, "Traceback" in said) != (works, True, False):
            wrong.append(f"{environment}$ {typed}: {code}, {said[-600:]}")
    gone = "~/t ~/.juliaup ~/.local/bin/R ~/.local/share/jupyter/kernels"
    sh(deployment, server, f"rm -rf {gone}")
    assert not wrong, "\n".join(wrong)

"""Environments come and go in an open launcher, and what is not there is explained."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

from conftest import NewPage
from deployment import Deployment, wait_for
from people import choose, in_lab, log_in, open_notebook, picture, run_cell, start
from playwright.sync_api import Page, expect

SHOWN = "mine (personal) - Python 3.13"
# Moved into its place when it is whole, as an installation that is done right does.
COPY = "rm -rf ~/.conda; mkdir -p ~/.conda/envs; cp -a /opt/conda/envs/py313-data ~/.conda/new"


def in_terminal(page: Page, command: str) -> None:
    """Type a command into a new terminal, and leave a launcher open."""
    page.locator(".jp-LauncherCard", has_text="Terminal").first.click()
    terminal = page.locator(".jp-Terminal:visible .xterm-helper-textarea").last
    terminal.wait_for(state="attached")
    page.locator(".jp-Terminal:visible").last.click()
    page.keyboard.type(command + "\n")
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name="New Launcher").click()


def test_an_environment_comes_and_goes_in_the_open_launcher(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    page = new_page()
    log_in(page, "alice")
    choose(page, "py313-data")
    start(page)
    in_lab(page)
    in_terminal(page, f"{COPY} && touch ~/.conda/copied")
    home = clean.root / "data/homes/alice"
    wait_for(lambda: (home / ".conda/copied").exists(), "the copy of an environment", 300)
    in_terminal(page, "mv ~/.conda/new ~/.conda/envs/mine")
    cards = page.locator(".jp-LauncherCard:visible", has_text=SHOWN)
    expect(cards.first).to_be_visible(timeout=40_000)  # JupyterLab itself would ask after 61 s
    picture(page, pictures, "launcher-new-environment")
    open_notebook(page, SHOWN)
    assert run_cell(page, "import sys; print(sys.prefix)").strip() == "/home/alice/.conda/envs/mine"
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name="New Launcher").click()
    expect(cards.first).to_be_visible(timeout=30_000)
    in_terminal(page, "rm -rf ~/.conda/envs/mine")
    expect(cards).to_have_count(0, timeout=30_000)


def missing_notebook() -> str:
    """Words for a shell that write a notebook whose kernel is not there."""
    name = "conda-image-py313-dato-python3"  # nearest by its name, whatever else there is
    cell = {
        "cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None,
        "source": "import numpy, sys; print(sys.prefix)",
    }  # fmt: skip
    notebook = {
        "cells": [cell],
        "metadata": {"kernelspec": {"name": name, "display_name": "gone", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return f"cat > ~/gone.ipynb <<'END'\n{json.dumps(notebook)}\nEND"


CHINESE = """
cd ~; settings=.jupyter/lab/user-settings/@jupyterlab/translation-extension
mkdir -p $settings .conda/envs/bare/conda-meta
echo '{"locale": "zh_CN"}' > $settings/plugin.jupyterlab-settings
touch -d yesterday .conda/envs/bare/conda-meta/{history,python-3.13.5-0_cp.json}
touch -d yesterday .conda/envs/bare/conda-meta
"""


def test_what_cannot_start_says_so_in_the_persons_language(
    clean: Deployment, new_page: NewPage, admin: str, pictures: Path
) -> None:
    clean.login_once("alice")
    clean.start_server(admin, "alice", {"environment": "py313-data"})
    [container] = clean.containers()
    clean.docker("exec", container, "bash", "-c", CHINESE + missing_notebook())
    clean.stop_all_servers(admin)
    clean.start_server(admin, "alice", {"environment": "py313-data"})
    [container] = clean.containers()
    try:
        shown = clean.docker("exec", container, "labcommons", "kernels", "list", "--problems")
        assert "bare (personal) - Python 3.13 (无法启动：缺少 ipykernel)" in shown
        page = new_page()
        log_in(page, "alice")
        page.goto(clean.server_url("alice") + "lab?reset")
        card = page.locator(".jp-LauncherCard:visible", has_text="无法启动：缺少 ipykernel")
        expect(card.first).to_be_visible(timeout=60_000)
        picture(page, pictures, "launcher-chinese")
        card.first.click()
        warning = page.get_by_text("此内核无法启动。运行任一单元格即可查看原因和解决办法。")
        expect(warning.first).to_be_visible(timeout=60_000)
        page.locator(".jp-Notebook .jp-CodeCell .cm-content").last.click()
        page.keyboard.insert_text("1 + 1")
        page.keyboard.press("Shift+Enter")
        output = page.locator(".jp-OutputArea-output")
        expect(output.first).to_contain_text(
            "没有内核。修复方法：请把 ipykernel 加入", timeout=60_000
        )
        expect(output.first).to_contain_text("或使用 数据分析 - Python 3.13。")
        picture(page, pictures, "kernel-cannot-start-chinese")
        page.goto(clean.server_url("alice") + "lab/tree/gone.ipynb?reset")
        dialog = page.get_by_role("dialog")
        expect(dialog.get_by_text("找不到内核", exact=True)).to_be_visible(timeout=60_000)
        picture(page, pictures, "kernel-not-found-chinese")
    finally:
        clean.docker("exec", container, "bash", "-c", "rm -rf ~/.jupyter ~/.conda/envs/bare")


def test_a_notebook_of_a_missing_kernel_gets_the_nearest_by_one_click(
    clean: Deployment, new_page: NewPage, admin: str, pictures: Path
) -> None:
    clean.login_once("alice")
    clean.start_server(admin, "alice", {"environment": "py313-data"})
    [container] = clean.containers()
    clean.docker("exec", container, "bash", "-c", missing_notebook())
    page = new_page()
    log_in(page, "alice")
    # Without the tabs of earlier visits.
    page.goto(clean.server_url("alice") + "lab/tree/gone.ipynb?reset")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Kernel not found")).to_be_visible(timeout=60_000)
    picture(page, pictures, "kernel-not-found")
    dialog.get_by_role("button", name="Use Data analysis - Python 3.13").click()
    expect(page.get_by_text("Data analysis - Python 3.13 | Idle")).to_be_visible(timeout=60_000)
    output = page.locator(".jp-OutputArea-output")
    page.locator(".jp-CodeCell .cm-content").first.click()
    page.keyboard.press("Shift+Enter")
    expect(output.first).to_contain_text("/opt/conda/envs/py313-data", timeout=60_000)


def test_a_colleague_finds_the_same_kernel_in_a_server_of_another_environment(
    clean: Deployment, new_page: NewPage, admin: str, pictures: Path
) -> None:
    chosen = {"alice": "py313-data", "bob": "py311-numpy1"}
    containers = {}
    for name, environment in chosen.items():
        clean.login_once(name)
        clean.start_server(admin, name, {"environment": environment})
        containers[name] = clean.docker(
            "ps", "-q", "--filter", f"label=labcommons.user={name}"
        ).strip()
    envs = clean.root / "data/teams/vision/envs"
    try:
        clean.docker("cp", f"{containers['alice']}:/opt/conda/envs/py313-data", str(envs / "new"))
        (envs / "new").rename(envs / "pair")
        shown = "pair (team: vision) - Python 3.13"
        page = new_page()
        log_in(page, "alice")
        page.goto(clean.server_url("alice") + "lab?reset")
        open_notebook(page, shown)
        assert run_cell(page, "import sys; print(sys.prefix)").strip() == (
            "/opt/labcommons/teams/vision/envs/pair"
        )
        page.keyboard.press("Control+s")
        page.get_by_role("button", name="Rename and Save").click()
        home = clean.root / "data/homes/alice"

        def written() -> list[Path]:
            name = '"conda-team-vision-pair-python3"'
            return [file for file in home.glob("*.ipynb") if name in file.read_text()]

        wait_for(written, "saving", 30)
        bob = clean.root / "data/homes/bob"
        shutil.copyfile(written()[0], bob / "from-alice.ipynb")
        os.chown(bob / "from-alice.ipynb", bob.stat().st_uid, bob.stat().st_gid)
        page = new_page()
        log_in(page, "bob")
        page.goto(clean.server_url("bob") + "lab/tree/from-alice.ipynb?reset")
        # In the language that bob's directory entry has: nobody's browser has asked for a server.
        idle = re.compile(rf"{re.escape(shown)} \| (Idle|空闲)")
        expect(page.get_by_text(idle)).to_be_visible(timeout=60_000)
        assert page.get_by_role("dialog").count() == 0
        picture(page, pictures, "notebook-of-a-colleague")
    finally:
        shutil.rmtree(envs / "pair", ignore_errors=True)
        for name, container in containers.items():
            clean.docker("exec", container, "sh", "-c", f"rm -f /home/{name}/*.ipynb")

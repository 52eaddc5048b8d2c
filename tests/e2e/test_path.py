"""The whole path: from the login page to a cell that runs beside its own GPU, and out again."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import NewPage
from deployment import Deployment, Here, wait_for
from people import choose, in_lab, log_in, log_out, open_notebook, picture, run_cell, start
from playwright.sync_api import expect

WHERE = (
    "import sys, numpy, os\n"
    "print(sys.prefix, numpy.__version__, os.environ['NVIDIA_VISIBLE_DEVICES'])"
)


def test_a_person_logs_in_chooses_and_runs_a_cell_with_a_gpu(
    clean: Deployment, new_page: NewPage, pictures: Path
) -> None:
    page = new_page()
    page.goto("/")
    expect(page.get_by_role("heading", name="This is a demo")).to_be_visible()
    picture(page, pictures, "login")
    log_in(page, "alice")
    choose(page, "py313-data", gpus=1)
    picture(page, pictures, "spawn")
    with clean.held_up():
        start(page)
        steps = page.locator("#steps li")
        expect(steps.filter(has_text="Waiting for JupyterLab")).to_be_visible(timeout=30_000)
        expect(steps.filter(has_text="(simulated)")).to_be_visible()
        picture(page, pictures, "progress")
    in_lab(page)
    expect(page.get_by_text("py313-data - Python 3.13").first).to_be_visible()
    picture(page, pictures, "launcher")
    open_notebook(page, "py313-data - Python 3.13")
    output = run_cell(page, WHERE)
    [lease] = clean.leases()
    assert re.match(rf"/opt/conda/envs/py313-data 2\.\S+ {lease['gpus'][0]['id']}$", output.strip())
    assert (lease["user"], lease["state"]) == ("alice", "active")
    run_cell(
        page,
        "import matplotlib.pyplot as plt, pandas as pd\n"
        "pd.DataFrame({'loss': [1/(n+1) for n in range(30)]}).plot(figsize=(6, 2.5));",
    )
    picture(page, pictures, "notebook")
    log_out(page)
    page.goto("/hub/home")
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()


def test_the_other_environment_is_another_python(clean: Deployment, new_page: NewPage) -> None:
    page = new_page()
    log_in(page, "bob")
    choose(page, "py311-numpy1")
    start(page)
    in_lab(page)
    open_notebook(page, "py311-numpy1 - Python 3.11")
    assert run_cell(page, WHERE).split() == [
        "/opt/conda/envs/py311-numpy1",
        run_cell(page, "print(numpy.__version__)").strip(),
        "void",
    ]
    assert run_cell(page, "print(numpy.__version__, sys.version_info[:2])").startswith("1.26.")


def test_two_ask_for_the_last_gpu_and_one_waits_for_the_other(
    clean: Deployment, admin: str, new_page: NewPage
) -> None:
    pages = {name: new_page() for name in ("alice", "bob")}
    for name, page in pages.items():
        log_in(page, name)
        choose(page, "py313-data", gpus=1, gpu_type="RTX 4090")
    for page in pages.values():
        page.evaluate("document.getElementById('spawn_form').requestSubmit()")
    wait_for(lambda: len(clean.labcommons("gpu", "queue")) == 1, "one of them to wait")
    [waiting] = clean.labcommons("gpu", "queue")
    [holding] = clean.leases()
    assert {waiting["user"], holding["user"]} == set(pages)
    expect(pages[waiting["user"]].get_by_text("Your server waits for GPUs")).to_be_visible()
    in_lab(pages[holding["user"]])
    clean.api("DELETE", f"users/{holding['user']}/server", admin)
    in_lab(pages[waiting["user"]])
    [lease] = clean.leases()
    assert (lease["user"], lease["state"]) == (waiting["user"], "active")


def test_nbconvert_runs_a_notebook_by_the_kernels_name(clean: Deployment, admin: str) -> None:
    clean.login_once("alice")
    clean.start_server(admin, "alice", {"environment": "py313-data"})
    [container] = clean.containers()
    notebook = (
        '{"cells": [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], '
        '"execution_count": null, "source": "import sys; print(sys.prefix)"}], "metadata": '
        '{"kernelspec": {"name": "conda-image-py313-data-python3", "display_name": "x"}}, '
        '"nbformat": 4, "nbformat_minor": 5}'
    )
    output = clean.docker(
        "exec", container, "bash", "-c",
        f"cd ~ && echo '{notebook}' > t.ipynb && "
        "jupyter nbconvert --to notebook --execute --stdout t.ipynb",
    )  # fmt: skip
    assert "/opt/conda/envs/py313-data" in output


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"environment": "nope"}, 400, "Environments: py311-numpy1, py313-data"),
        ({"environment": "py313-data", "gpus": 7}, 400, "at most 1"),
        ({"environment": "py313-data", "size": "huge"}, 400, "Sizes: small, medium"),
        ({"environment": "py313-data", "image": "evil"}, 400, "no option “image”"),
    ],
)
def test_rest_refuses_with_the_cause_and_what_would_work(
    clean: Deployment, admin: str, options: dict[str, object], status: int, words: str
) -> None:
    clean.login_once("alice")
    code, answer = clean.api("POST", "users/alice/server", admin, options)
    assert (code, words in answer["message"]) == (status, True), answer
    assert clean.leases() == clean.containers() == []


def test_a_wrong_password_gives_one_message(deployment: Deployment, new_page: NewPage) -> None:
    messages = []
    for name, password in (("alice", "wrong"), ("nobody-here", "wrong")):
        page = new_page()
        log_in(page, name, password)
        messages.append(page.locator("#login-error").inner_text())
    assert messages[0] == messages[1] != ""


def test_the_site_speaks_chinese(clean: Deployment, new_page: NewPage, pictures: Path) -> None:
    page = new_page(locale="zh-CN")
    page.goto("/")
    picture(page, pictures, "login-zh")
    page.locator("input[name=username]").fill("alice")
    page.locator("input[name=password]").fill("alice-demo")
    page.locator("#login_submit").click()
    page.wait_for_url("**/hub/**")
    page.goto("/hub/spawn")
    picture(page, pictures, "spawn-zh")
    text = page.locator("main").inner_text()
    assert "选择" in text
    assert "Choose" not in text


def test_narrow_and_dark(clean: Deployment, new_page: NewPage, pictures: Path) -> None:
    page = new_page(viewport={"width": 375, "height": 812}, color_scheme="dark")
    log_in(page, "bob")
    page.goto("/hub/spawn")
    picture(page, pictures, "spawn-narrow-dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_http_leads_to_https_and_nothing_else_is_published(deployment: Deployment) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_args: object) -> None:
            return None

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.build_opener(Stay).open("http://localhost:8080/hub/login", timeout=10)
    assert caught.value.headers["Location"] == f"{deployment.url}/hub/login"
    listening = subprocess.run(
        ["ss", "-Hltn"], check=True, capture_output=True, text=True
    ).stdout.split("\n")
    ports = {line.split()[3].rsplit(":", 1)[1] for line in listening if line}
    assert ports & {"8081", "8082", "8083", "8001", "8000", "1389"} == set()


def test_localhost_leads_browsers_to_the_site_and_tells_programs(deployment: Deployment) -> None:
    elsewhere = "https://localhost:8443"
    with deployment.opener().open(f"{elsewhere}/hub/login", timeout=10) as page:
        assert page.url == f"{deployment.url}/hub/login"
    for path in ("/hub/api/", "/services/labcommons/api/v1/me"):
        assert deployment.get(elsewhere + path) == 421


def test_a_certificate_is_needed_that_the_sites_ca_signed(deployment: Deployment) -> None:
    opener = urllib.request.build_opener(Here(context=ssl.create_default_context()))
    with pytest.raises(urllib.error.URLError) as caught:
        opener.open(deployment.url, timeout=10)
    assert isinstance(caught.value.reason, ssl.SSLCertVerificationError)


def test_the_directory_is_checked_as_the_hub_sees_it(deployment: Deployment) -> None:
    report = deployment.labcommons("ldap", "check", "bob")
    assert report["right"] is True, report
    assert "vision" in json.dumps(report["person"])


def test_logins_are_in_the_audit_trail_without_passwords(deployment: Deployment) -> None:
    deployment.login_once("dan")
    trail = (deployment.root / "data" / "hub" / "audit.jsonl").read_text("utf-8")
    [*_, last] = [event for event in map(json.loads, trail.splitlines()) if "dan" in str(event)]
    assert last["event"]["outcome"] == "success"
    assert "dan-demo" not in trail

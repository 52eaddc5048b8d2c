"""The whole path: from the login page to a cell that runs beside its own GPU, and out again."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import urllib.error
import urllib.request
from datetime import UTC, datetime
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
    expect(page.get_by_text("Data analysis - Python 3.13").first).to_be_visible()
    picture(page, pictures, "launcher")
    open_notebook(page, "Data analysis - Python 3.13")
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
    open_notebook(page, "NumPy 1 (older code) - Python 3.11")
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
        ({"environment": "nope"}, 400, "Environments: py313-data, py311-numpy1"),
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


IN_CHINESE = r"""
import locale, logging, os, time, warnings
warnings.simplefilter("error")
import matplotlib.pyplot as plt
said = []
catch = logging.Handler(logging.WARNING)
catch.emit = said.append
logging.getLogger("matplotlib").addHandler(catch)
name = "数据（张三）.txt"
with open(name, "w") as file: file.write("结果")
# Windows' and macOS's fonts, as notebooks name them, and what seaborn.set_theme() sets.
SEABORN = ["Arial", "DejaVu Sans", "Liberation Sans", "Bitstream Vera Sans", "sans-serif"]
for fonts in (
    {}, {"font.sans-serif": ["SimHei"]}, {"font.family": "Microsoft YaHei"},
    {"font.family": "STHeiti"}, {"font.family": "serif"}, {"font.sans-serif": SEABORN},
):
    with plt.rc_context(fonts):
        figure, axes = plt.subplots(figsize=(5, 2))
        axes.plot([-1, 1]); axes.set_title("训练损失（第 1 次）")
        figure.canvas.draw()
        plt.close(figure)
import pandas, subprocess
with open("成绩.csv", "wb") as file: file.write("\ufeff姓名,分数\n张三,90\n".encode())  # Excel's
with open("成绩-gbk.csv", "wb") as file: file.write("姓名,分数\n张三,90\n".encode("gbk"))
read = [*pandas.read_csv("成绩.csv"), *pandas.read_csv("成绩-gbk.csv", encoding="gbk")]
shell = "zip -q 包.zip 成绩.csv; unzip -Z1 包.zip; git init -q g; cd g; touch 表; ls; git status -s"
heard = subprocess.run(shell, shell=True, capture_output=True, text=True).stdout.split()
locale.setlocale(locale.LC_ALL, "")
people = sorted(["张三", "王五", "李四"], key=locale.strxfrm)
print(os.environ["LANG"], time.tzname[0], *people, os.path.exists(name), said, *read, *heard)
"""


def test_the_site_speaks_chinese(clean: Deployment, new_page: NewPage, pictures: Path) -> None:
    """The kind: all that a person reads, types, names, sorts and plots is in their language."""
    page = new_page(locale="en-GB", timezone_id="Asia/Shanghai")
    page.goto("/")
    page.get_by_role("button", name="简体中文").click()
    expect(page.locator("#login_submit")).to_contain_text("登录")
    picture(page, pictures, "login-zh")
    page.locator("input[name=username]").fill("s14")  # of no other scene: a choice is kept
    page.locator("input[name=password]").fill("s14-demo")
    page.locator("#login_submit").click()
    page.wait_for_url("**/hub/**")
    page.goto("/hub/spawn")
    picture(page, pictures, "spawn-zh")
    text = page.locator("main").inner_text()
    assert "选择" in text
    assert "Choose" not in text
    choose(page, "py313-data")
    page.get_by_role("button", name="启动", exact=True).click()
    page.wait_for_url("**/user/*/lab**", timeout=120_000)
    page.goto(page.url.partition("?")[0] + "?reset")
    expect(page.locator(".lm-MenuBar").get_by_text("文件")).to_be_visible(timeout=60_000)
    picture(page, pictures, "launcher-zh")
    page.locator(".jp-LauncherCard", has_text="数据分析 - Python 3.13").first.click()
    expect(page.get_by_text("数据分析 - Python 3.13 | 空闲")).to_be_visible(timeout=60_000)
    output = run_cell(page, IN_CHINESE)
    picture(page, pictures, "notebook-zh")
    read = "姓名 分数 姓名 分数 成绩.csv 表 ?? 表"
    assert output.split("\n")[0] == f"zh_CN.UTF-8 CST 李四 王五 张三 True [] {read}"


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
    command = str(deployment.root / "bin/labcommons")
    [*_, last] = json.loads(
        deployment.run(command, "audit", "show", "--person", "dan", "--action", "login", "--json")
    )
    assert last["event"]["outcome"] == "success"
    trail = deployment.run(command, "audit", "export")
    assert "dan-demo" not in trail
    assert deployment.run(command, "audit", "verify").endswith("The trail is whole.\n")


# A line that warns, as each of the programs writes it.
WARNS = re.compile(
    r"^\[[WEC] |Bad message |\b(WARNING|ERROR|CRITICAL|Traceback)\b|Warning: "
    r"|\[(warn|error|crit|alert|emerg)\]|ConfigProxy\] \S*(warn|error)"
)
# What may be there all the same, and why.
MAY_WARN = (
    "Event loop was unresponsive",  # the machine that runs the tests has other work
    "received signal 15, stopping",  # Jupyter's word for a stop that was asked for
)
SERVICES = ("hub", "console", "kernels", "agent", "chp", "proxy", "gate", "perimeter", "directory")


def test_the_logs_of_a_usual_day_hold_no_warning(
    clean: Deployment, new_page: NewPage, tmp_path: Path
) -> None:
    """Kind: lines at warning level that mean nothing, of every service and of the person's server:
    a login, a start, a notebook, a terminal, a stop beside which another tab stays open, the
    services' pages.
    """
    began = datetime.now(UTC).isoformat()
    page = new_page()
    log_in(page, "bob")
    choose(page, "py313-data", gpus=1)
    start(page)
    in_lab(page)
    [container] = clean.containers("bob")
    with (tmp_path / "server").open("wb") as file:
        command = ["docker", "logs", "-f", container]
        follow = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    open_notebook(page, "Data analysis - Python 3.13")
    assert run_cell(page, "print(1 + 1)").strip() == "2"
    run_cell(page, "import matplotlib.pyplot as plt; plt.plot([1, 2]);")
    page.get_by_role("menuitem", name="File", exact=True).click()
    page.get_by_role("menuitem", name="New Launcher").click()
    page.locator(".jp-LauncherCard:visible", has_text="Terminal").first.click()
    page.locator(".jp-Terminal:visible .xterm-helper-textarea").last.wait_for(state="attached")
    tab, page = page, page.context.new_page()
    page.goto("/hub/home")
    page.get_by_role("button", name="Stop My server").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop", exact=True).click()
    wait_for(lambda: not clean.containers("bob"), "the server to stop")
    expect(page.get_by_text("No server is running")).to_be_visible()
    expect(tab.locator("[role=dialog], .jp-Dialog").first).to_be_visible()  # it has asked, in vain
    for service in ("labcommons", "kernels"):  # each lets them in by the hub's word
        page.goto(f"/services/{service}/")
        expect(page.locator("h1")).to_be_visible()
    log_out(page)
    follow.wait(30)
    said = {service: clean.output_of(service, began) for service in SERVICES}
    said["server"] = (tmp_path / "server").read_text("utf-8", "replace")
    assert said["server"]
    warned = [
        f"{where}: {line}"
        for where, text in said.items()
        for line in text.splitlines()
        if WARNS.search(line) and not any(one in line for one in MAY_WARN)
    ]
    assert warned == []

"""Environments of teams and people: pasted, built, used, published; and who may not, tried."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import NewPage
from deployment import Deployment, wait_for
from people import choose, in_lab, log_in, picture, start
from playwright.sync_api import expect

CONSOLE = "/services/labcommons/api/v1/"
ENVS = "/opt/labcommons/teams/vision/envs"
SPEC = textwrap.dedent(
    """\
    name: NAME
    channels: [conda-forge]
    dependencies:
      - python 3.13.*
      - ipykernel
      - numpy
    """
)
RUN = textwrap.dedent(
    """\
    import asyncio, sys
    from jupyter_client.manager import AsyncKernelManager
    from kernels.manager import CondaKernelSpecManager

    async def main():
        manager = AsyncKernelManager(
            kernel_name=sys.argv[1], kernel_spec_manager=CondaKernelSpecManager()
        )
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(30)
        said = []
        await client.execute_interactive(
            "import numpy, sys; print(sys.prefix, numpy.__version__)", timeout=30,
            output_hook=lambda message: said.append(message["content"].get("text", "")),
        )
        print("".join(said))
        await manager.shutdown_kernel(now=True)

    asyncio.run(main())
    """
)


@pytest.fixture(scope="module")
def tokens(deployment: Deployment) -> dict[str, str]:
    return {name: deployment.login_once(name) for name in ("alice", "bob", "carol", "dan")}


@pytest.fixture(scope="module")
def servers(deployment: Deployment, tokens: dict[str, str]) -> Iterator[dict[str, str]]:
    """Everybody's running server: container by name."""
    deployment.stop_all_servers(tokens["carol"])
    for name, token in tokens.items():
        deployment.start_server(token, name, {"environment": "py313-data", "size": "small"})
    yield {
        name: deployment.docker("ps", "-q", "--filter", f"label=labcommons.user={name}").strip()
        for name in tokens
    }
    deployment.stop_all_servers(tokens["carol"])


def ask(site: Deployment, token: str, method: str, path: str, body: object = None) -> Any:
    status, answer = site.api(method, path, token, body, of=CONSOLE)
    assert status in (200, 202), answer
    return answer


def finished(site: Deployment, token: str, build: str) -> dict[str, Any]:
    """The build when it is over."""
    found: dict[str, Any] = {}

    def over() -> bool:
        found.update(ask(site, token, "GET", f"builds/{build}"))
        return found["build"]["state"] not in ("queued", "running")

    wait_for(over, f"build {build}", 400)
    return found


def build(site: Deployment, token: str, source: str, name: str, spec: str = SPEC) -> dict[str, Any]:
    body = {"source": source, "name": name, "spec": spec.replace("NAME", name)}
    asked = ask(site, token, "POST", "environments", body)
    return finished(site, token, asked["build"]["id"])


def sh(site: Deployment, container: str, script: str) -> tuple[int, str]:
    """A command in somebody's server, as that person: (exit code, output)."""
    text = site.docker("exec", container, "bash", "-c", f'({script}) 2>&1; echo "\n$?"').rstrip()
    said, _, code = text.rpartition("\n")
    return int(code), said.strip()


@pytest.fixture(scope="module")
def team_environment(deployment: Deployment, tokens: dict[str, str]) -> str:
    """An environment that bob, the lead, built for team vision."""
    done = build(deployment, tokens["bob"], "team-vision", "vision-numpy")
    assert done["build"]["state"] == "done", done["log"] + done["build"]["message"]
    return "vision-numpy"


def test_a_team_environment_is_the_leads_to_write_and_the_members_to_read(
    deployment: Deployment, servers: dict[str, str], team_environment: str
) -> None:
    link = f"{ENVS}/{team_environment}"
    code, said = sh(
        deployment,
        servers["alice"],
        f"stat -Lc '%U %u %g %a' {link}; {link}/bin/python -c 'import numpy'",
    )
    assert (code, said.split()[1:]) == (0, ["20002", "21001", "750"])
    _, said = sh(
        deployment, servers["alice"],
        f"find {ENVS}/.versions/{team_environment}/*/ -perm /022 ! -type l",
    )  # fmt: skip
    assert said == "", "nothing in it may be written by the group or by others"


# What is tried, by whom; every one of these must fail. P is the environment's folder.
FORBIDDEN = [
    ("alice", "touch $P/bin/evil"),
    ("alice", "echo x >> $P/conda-meta/history"),
    ("alice", "rm -rf $P/share"),
    ("alice", "chmod g+w $P"),
    ("alice", "chgrp 20000 $P"),
    ("alice", "ln -sfn /tmp $L"),
    ("alice", "rm $L"),
    ("alice", "mv $E/.versions/vision-numpy $E/.versions/gone"),
    ("alice", "mkdir $E/mine"),
    ("alice", "mv $E $E.old"),
    ("alice", "cat /home/bob/.bashrc"),
    ("alice", "ls /opt/labcommons/courses/ml101"),
    ("alice", "touch /opt/labcommons/shared/x"),
    ("alice", "touch /opt/labcommons/pkgs/x"),
    ("alice", "touch /opt/conda/envs/py313-data/x"),
    ("alice", "sg 21002 -c id || newgrp 21002 || chgrp 21002 ~"),
    ("bob", "mv $E $E.old"),
    ("bob", "chmod o+rx $E/.."),
    ("bob", "touch $E/../x"),
    ("bob", "chown 20003 $P"),
    ("bob", "touch /opt/labcommons/shared/x"),
    ("dan", "ls $E"),
    ("dan", "ls /opt/labcommons/teams/vision"),
    ("dan", "cat $L/conda-meta/history"),
    ("dan", "touch /opt/labcommons/shared/x"),
    ("carol", "touch $P/bin/evil"),
    ("carol", "ls $E"),
    ("carol", "touch /opt/labcommons/shared/x"),
]  # fmt: skip


@pytest.mark.parametrize(("who", "attempt"), FORBIDDEN)
def test_what_the_kernel_forbids(
    deployment: Deployment, servers: dict[str, str], team_environment: str, who: str, attempt: str
) -> None:
    variables = f"E={ENVS}; L=$E/{team_environment}; P=$(readlink -f $L || echo $L/.); "
    code, said = sh(deployment, servers[who], variables + attempt)
    assert code != 0, said


def test_what_people_make_in_a_terminal_is_not_for_everybody(
    deployment: Deployment, servers: dict[str, str]
) -> None:
    _, said = sh(
        deployment, servers["alice"], "stat -c %a ~; tr '\\0' '\\n' </proc/1/status | grep -i umask"
    )
    assert said.splitlines()[0] == "700"
    _, said = sh(deployment, servers["alice"], "grep -h Umask /proc/[0-9]*/status | sort | uniq")
    assert "0027" in said


def test_members_run_what_their_lead_published_and_each_step_is_in_the_audit_trail(
    deployment: Deployment, servers: dict[str, str], tokens: dict[str, str]
) -> None:
    site = deployment
    done = build(site, tokens["bob"], "personal", "study")
    assert done["build"]["state"] == "done", done["log"]
    answer = ask(
        site, tokens["bob"], "POST", "environments/personal/study/copy", {"to": "team-vision"}
    )
    published = finished(site, tokens["bob"], answer["build"]["id"])
    assert published["build"]["state"] == "done", published["log"]
    mine = ask(site, tokens["bob"], "GET", "environments/personal/study")["environment"]
    theirs = ask(site, tokens["alice"], "GET", "environments/team-vision/study")["environment"]
    assert mine["history"][0]["lock_digest"] == theirs["history"][0]["lock_digest"]
    _, said = sh(
        site, servers["alice"],
        f"{ENVS}/study/bin/python -c 'import numpy, sys; print(sys.prefix, numpy.__version__)'",
    )  # fmt: skip
    assert f"{ENVS}/.versions/study/{theirs['version']}" in said or f"{ENVS}/study" in said
    promoted = ask(
        site, tokens["carol"], "POST", "environments/team-vision/study/copy", {"to": "shared"}
    )
    assert finished(site, tokens["carol"], promoted["build"]["id"])["build"]["state"] == "done"
    code, said = sh(
        site, servers["dan"], "/opt/labcommons/shared/envs/study/bin/python -c 'import numpy'"
    )
    assert code == 0, said
    trail = [json.loads(line) for line in site.run(
        str(site.root / "bin/labcommons"), "audit", "export", "--about", "study"
    ).splitlines()]  # fmt: skip
    steps = [
        (event["event"]["action"], event["user"]["name"], event["labcommons"]["scope"])
        for event in trail
        if event.get("labcommons", {}).get("environment") == "study"
    ]
    assert steps[-3:] == [
        ("environment-build", "bob", "personal"),
        ("environment-publish", "bob", "team-vision"),
        ("environment-promote", "carol", "shared"),
    ]


def test_what_a_lead_withdraws_is_offered_to_no_member_any_more(
    deployment: Deployment, servers: dict[str, str], tokens: dict[str, str], team_environment: str
) -> None:
    path = f"environments/team-vision/{team_environment}"
    version = ask(deployment, tokens["bob"], "GET", path)["environment"]["version"]
    listed = "/opt/labcommons/server/bin/jupyter kernelspec list --json"

    def decide(**body: object) -> None:
        answer = ask(deployment, tokens["bob"], "POST", f"{path}/versions/{version}/withdraw", body)
        done = finished(deployment, tokens["bob"], answer["build"]["id"])
        assert done["build"]["state"] == "done", done

    def is_offered() -> bool:
        return f"team-vision-{team_environment}" in sh(deployment, servers["alice"], listed)[1]

    wait_for(is_offered, "the kernel", 30)
    decide(reason="wrong units")
    wait_for(lambda: not is_offered(), "the kernel to be taken away", 30)
    link = f"{ENVS}/{team_environment}"
    _, said = sh(
        deployment, servers["alice"],
        f". /opt/labcommons/etc/conda.sh; conda activate {link}; labcommons env current",
    )  # fmt: skip
    assert "wrong units" in said
    assert sh(deployment, servers["alice"], f"{link}/bin/python -c 'import numpy'")[0] == 0
    decide(undo=True)
    wait_for(is_offered, "the kernel to come back", 30)


def test_what_runs_is_not_deleted_and_who_runs_it_is_named(
    deployment: Deployment, servers: dict[str, str], tokens: dict[str, str], team_environment: str
) -> None:
    site = deployment
    site.docker(
        "exec", "-d", servers["alice"], f"{ENVS}/{team_environment}/bin/python", "-c",
        "import time; time.sleep(600)",
    )  # fmt: skip
    path = f"environments/team-vision/{team_environment}"
    refused = finished(site, tokens["bob"], ask(site, tokens["bob"], "DELETE", path)["build"]["id"])
    assert refused["build"]["state"] == "failed"
    assert "in use by alice" in refused["build"]["message"]
    sh(site, servers["alice"], "pkill -f 'time.slee[p]'")
    wait_for(lambda: sh(site, servers["alice"], "pgrep -f 'time.slee[p]'")[0] != 0, "its end", 10)
    gone = finished(site, tokens["bob"], ask(site, tokens["bob"], "DELETE", path)["build"]["id"])
    assert gone["build"]["state"] == "done", gone
    assert (
        sh(site, servers["bob"], f"ls -A {ENVS} {ENVS}/.versions | grep {team_environment}")[0] != 0
    )


def test_a_hub_that_is_killed_in_mid_build_takes_it_up_again(
    deployment: Deployment, tokens: dict[str, str]
) -> None:
    site = deployment
    body = {"source": "personal", "name": "survivor", "spec": SPEC.replace("NAME", "survivor")}
    job = ask(site, tokens["alice"], "POST", "environments", body)["build"]["id"]

    def builders() -> list[str]:
        return site.docker("ps", "-q", "--filter", f"label=labcommons.build={job}").split()

    wait_for(lambda: bool(builders()), "a builder", 30)
    site.kill("hub")
    wait_for(lambda: site.healthy("hub"), "the hub to be back", 90)
    done = finished(site, tokens["alice"], job)
    assert done["build"]["state"] == "done", done
    assert builders() == []
    found = ask(site, tokens["alice"], "GET", "environments/personal/survivor")
    assert found["environment"]["version"] == done["build"]["version"]


def test_conda_activate_and_env_current_work_in_a_terminal(
    deployment: Deployment, servers: dict[str, str], tokens: dict[str, str]
) -> None:
    build(deployment, tokens["alice"], "personal", "survivor")
    script = (
        "PS1=x; . /etc/bash.bashrc; conda activate py313-data && echo $CONDA_DEFAULT_ENV;"
        "conda activate survivor && which python && labcommons env current --json;"
        "conda deactivate; echo ${CONDA_PREFIX-none}; cat /etc/conda/condarc"
    )
    _, said = sh(deployment, servers["alice"], script)
    assert said.startswith("py313-data\n/home/alice/.conda/envs/survivor/bin/python\n{")
    facts, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    assert (facts["name"], facts["source"]) == ("survivor", "personal")
    assert len(facts["lock_digest"]) == 64
    assert "\nnone\n" in said
    assert "/opt/labcommons/pkgs" in said


def test_paste_build_and_use_in_the_browser(
    deployment: Deployment, servers: dict[str, str], new_page: NewPage, pictures: Any
) -> None:
    page = new_page()
    log_in(page, "alice")
    expect(page.get_by_role("button", name="Sign in")).to_have_count(0)
    page.goto("/services/labcommons/environments")
    page.get_by_text("Build an environment").click()
    given = SPEC.replace("NAME", "pasted").replace("numpy", "numpy  # 数组").replace("\n", "\r\n")
    for codec, upload in (("gbk", b"Z\xe4hlung"), ("utf-16", given.encode("utf-16"))):
        page.locator("#new-file").set_input_files(
            {"name": f"{codec}.yml", "mimeType": "text/yaml", "buffer": upload}
        )
        if codec == "gbk":
            expect(page.get_by_role("alert")).to_contain_text("not UTF-8 text. Save it as UTF-8")
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.locator("#new-spec")).to_have_value(given.replace("\r\n", "\n"))
    expect(page.get_by_label("Name of the environment")).to_have_value("pasted")
    page.get_by_role("button", name="Build", exact=True).click()
    card = page.locator(".lc-build", has_text="pasted")
    expect(card.get_by_role("progressbar")).to_be_visible()
    picture(page, pictures, "environments-building")
    expect(card.get_by_text("Done")).to_be_visible(timeout=120_000)
    card.get_by_role("button", name="Show it in the list").click()
    expect(page.locator("[data-environment='personal/pasted']")).to_be_visible()
    picture(page, pictures, "environments")
    program = ["exec", servers["alice"], "/opt/labcommons/server/bin/python", "-c", RUN]
    said = deployment.docker(*program, "conda-personal-pasted-python3")
    assert "/home/alice/.conda/envs/" in said
    page.get_by_label("Search by name").fill("numpy personal")
    expect(page.get_by_text("Shown:")).to_be_visible()
    page.get_by_role("button", name="Delete pasted").click()
    page.locator("#remove-yes").click()
    expect(
        page.locator(".lc-build", has_text="Delete: pasted").get_by_text("Deleted")
    ).to_be_visible()


def test_what_is_made_and_removed_in_a_terminal_is_on_the_page(
    deployment: Deployment, servers: dict[str, str], tokens: dict[str, str]
) -> None:
    mine = "~/.conda/envs/by-hand"

    def is_listed() -> bool:
        deployment.api("POST", "environments/look", tokens["alice"], {}, of=CONSOLE)
        found = ask(deployment, tokens["alice"], "GET", "environments")["environments"]
        return ("personal", "by-hand") in [(item["source"], item["name"]) for item in found]

    sh(
        deployment, servers["alice"],
        f"mkdir -p {mine} && cp -r /opt/conda/envs/py313-data/conda-meta {mine}/ && "
        f"chmod -R u+w {mine} && rm -r {mine}/conda-meta/labcommons",
    )  # fmt: skip
    wait_for(is_listed, "the environment on the page", 60)
    path = "environments/personal/by-hand"
    shown = ask(deployment, tokens["alice"], "GET", path)["environment"]
    assert (shown["version"], shown["python"][:4]) == ("live", "3.13")
    assert "numpy" in [item["name"] for item in shown["packages"]]
    sh(deployment, servers["alice"], f"rm -rf {mine}")
    wait_for(lambda: not is_listed(), "the environment to go from the page", 60)


def test_a_pip_section_is_chosen_by_the_service_and_installed_as_the_person(
    deployment: Deployment, tokens: dict[str, str]
) -> None:
    spec = SPEC + "  - pip:\n      - tomli-w ==1.0.0\n"
    done = build(deployment, tokens["alice"], "personal", "with-pip", spec)
    assert done["build"]["state"] == "done", done["log"] + done["build"]["message"]
    assert "fetching pip's packages" in done["log"]
    path = "environments/personal/with-pip"
    shown = ask(deployment, tokens["alice"], "GET", path)["environment"]
    wheel = {"name": "tomli-w", "version": "1.0.0", "channel": "pypi"}
    assert wheel in shown["packages"]
    # Its export is a lock that anybody brings along: built of the same packages, pip's as well.
    lock = ask(deployment, tokens["alice"], "GET", f"{path}/export?format=conda-lock")
    again = build(deployment, tokens["alice"], "personal", "from-a-lock", lock)
    assert again["build"]["state"] == "done", again["log"] + again["build"]["message"]
    found = ask(deployment, tokens["alice"], "GET", "environments/personal/from-a-lock")
    digests = [one["history"][0]["lock_digest"] for one in (found["environment"], shown)]
    assert digests[0] == digests[1]
    assert found["environment"]["packages"] == shown["packages"]
    assert "  - tomli-w==1.0.0\n" in found["environment"]["spec"]  # what can be changed of it
    # What cannot be built says so before anybody waits for a builder.
    body = {"source": "personal", "name": "x", "spec": "numpy\nscipy>=1\n"}
    status, answer = deployment.api("POST", "environments", tokens["alice"], body, of=CONSOLE)
    assert status == 400
    assert "pip's requirements.txt" in answer["error"]["message"]


def test_a_copy_with_a_package_added_is_what_a_server_starts_with(
    deployment: Deployment, tokens: dict[str, str], new_page: NewPage, pictures: Any
) -> None:
    """From an image to one's own, in place again, and from the spawn form into its kernel."""
    asked = ask(
        deployment, tokens["alice"], "POST", "environments/image/py313-data/derive",
        {"add": ["cowsay"]},
    )  # fmt: skip
    name = asked["build"]["name"]
    done = finished(deployment, tokens["alice"], asked["build"]["id"])
    assert done["build"]["state"] == "done", done["log"] + done["build"]["message"]
    first = done["build"]["version"]
    path = f"environments/personal/{name}"
    before = ask(deployment, tokens["alice"], "GET", path)["environment"]
    assert "cowsay" in before["package_names"]
    change = {"remove": ["cowsay"], "add": ["six"], "base": first}
    again = ask(deployment, tokens["alice"], "POST", f"{path}/edit", change)
    done = finished(deployment, tokens["alice"], again["build"]["id"])
    assert done["build"]["state"] == "done", done["log"] + done["build"]["message"]
    after = ask(deployment, tokens["alice"], "GET", path)["environment"]
    assert "cowsay" not in after["package_names"]
    assert {one["version"] for one in after["history"]} == {first, done["build"]["version"]}
    # What was not asked to change is as it was.
    old = {one["name"]: one["version"] for one in before["packages"]}
    new = {one["name"]: one["version"] for one in after["packages"]}
    assert {key: old[key] for key in old if key != "cowsay"}.items() <= new.items()

    deployment.stop_all_servers(tokens["carol"])
    page = new_page()
    log_in(page, "alice")
    page.goto("/hub/spawn")
    picture(page, pictures, "spawn-own-environments")
    choose(page, f"personal/{name}")
    start(page)
    in_lab(page)
    picture(page, pictures, "launcher-own-environment")
    [server] = deployment.containers("alice")
    token = "Authorization: token $JUPYTERHUB_API_TOKEN"
    ask_it = f'curl -s -H "{token}" localhost:8888/user/alice/api/kernelspecs'
    specs = json.loads(deployment.docker("exec", server, "bash", "-c", ask_it))
    assert specs["default"] == f"conda-personal-{name}-python3"
    shown = specs["kernelspecs"]["conda-image-py313-data-python3"]["spec"]["display_name"]
    assert shown == "Data analysis - Python 3.13"
    page.goto("/hub/home")
    expect(page.get_by_text(f"Environment: {name}")).to_be_visible()
    picture(page, pictures, "home-own-environment")
    # It is chosen again.
    deployment.stop_all_servers(tokens["carol"])
    page.goto("/hub/spawn")
    expect(page.locator(f"input[data-name='personal/{name}']")).to_be_checked()

"""`labcommons doctor` on the machine: each check of the host's, shown well and shown red."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from deploy import doctor, host_checks, images
from deploy.host_checks import Site, row
from deploy.images import UPDATED
from deploy.settings import Settings

LAYERS = "image inspect --format {{json .RootFS.Layers}}"


class Machine(Site):
    """A site whose Engine answers what a test has written down, by the first words."""

    answers: dict[str, Any]

    def ask(self, *words: str) -> str | None:
        line = " ".join(words)
        found = next((said for key, said in self.answers.items() if line.startswith(key)), None)
        return found if found is None or isinstance(found, str) else json.dumps(found)

    def last_words(self, container: str, lines: int = 8) -> str:
        return "database is locked" if container else ""


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    settings = Settings("lab", (), "site.yaml", tmp_path, "127.0.0.1", 1, 1)
    one = Machine({}, settings)
    object.__setattr__(one, "answers", {})
    return one


def container(status: str = "running", health: str = "healthy", again: int = 0) -> dict[str, Any]:
    return {
        "Id": "abc",
        "Image": "sha256:1",
        "RestartCount": again,
        "State": {"Status": status, "ExitCode": 1, "Health": {"Status": health}},
        "Config": {"Image": "labcommons/hub", "Labels": {"com.docker.compose.service": "hub"}},
    }


def states(machine: Site, name: str) -> list[str]:
    """What a check found; what is not well says what to do, in both languages."""
    rows = doctor.examine(machine, {name: host_checks.CHECKS[name]})
    for one in rows:
        assert one["check"] == name
        assert one["cause"]["en"]
        assert one["cause"]["zh_CN"]
        assert one["state"] in ("ok", "unknown") or (one["remedy"]["en"] and one["remedy"]["zh_CN"])
    return [one["state"] for one in rows]


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (container(), "ok"),
        (container(status="exited"), "broken"),
        (container(health="unhealthy"), "broken"),
        (container(again=12), "warning"),
    ],
)
def test_services(machine: Machine, found: dict[str, Any], state: str) -> None:
    machine.answers.update({"ps": "abc", "inspect": [found]})
    assert states(machine, "services") == [state]


def test_a_site_without_services(machine: Machine) -> None:
    assert states(machine, "services") == ["broken"]


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"ServerVersion": "28.5", "Driver": "overlay2", "LiveRestoreEnabled": True}, ["ok"]),
        ({"ServerVersion": "28.5", "Driver": "overlay2"}, ["advice", "ok"]),
        (
            {"ServerVersion": "18.09", "Driver": "vfs", "LiveRestoreEnabled": True},
            ["warning", "warning", "ok"],
        ),
    ],
)
def test_engine(machine: Machine, info: dict[str, Any], expected: list[str]) -> None:
    machine.answers["info"] = info
    assert states(machine, "Engine") == expected


def test_an_engine_that_does_not_answer(machine: Machine) -> None:
    assert states(machine, "Engine") == ["broken"]


@pytest.mark.parametrize(
    ("room", "inodes", "state"), [(50, 50, "ok"), (5, 50, "warning"), (50, 1, "broken")]
)
def test_disk(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, room: int, inodes: int, state: str
) -> None:
    (machine.settings.data / "homes").mkdir()  # on the same disk: said once
    found = os.statvfs_result((4096, 4096, 100, room, room, 100, inodes, inodes, 0, 255))
    monkeypatch.setattr(host_checks.os, "statvfs", lambda _place: found)
    assert states(machine, "disk") == [state]


def test_ports(machine: Machine) -> None:
    assert states(machine, "ports") == ["broken", "broken"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        open_ = Machine({}, Settings("lab", (), "", Path(), "127.0.0.1", port, port))
        assert states(open_, "ports") == ["ok", "ok"]


@pytest.mark.parametrize(("said", "state"), [("yes", "ok"), ("no", "warning"), (None, "ok")])
def test_ntp(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, said: str | None, state: str
) -> None:
    monkeypatch.setattr(host_checks, "output", lambda *_words, **_named: said)
    assert states(machine, "NTP") == [state]


@pytest.mark.parametrize("selinux", [False, True])
def test_what_confines_containers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, selinux: bool
) -> None:
    (tmp_path / "enforce").touch()
    place = tmp_path / ("enforce" if selinux else "none")
    monkeypatch.setattr(host_checks, "SELINUX", place)
    [found] = host_checks.security(machine)
    assert ("SELinux is on" in found["cause"]["en"]) == selinux
    assert states(machine, "security") == ["advice"]
    for name in ("apparmor", "selinux"):
        machine.answers["info"] = [f"name={name}"]
        assert states(machine, "security") == ["ok"]


def test_the_age_of_debians_updates(machine: Machine) -> None:
    assert states(machine, "updates") == ["unknown"]
    machine.answers["image inspect"] = {UPDATED: date.today().isoformat()}
    assert states(machine, "updates") == ["ok"]
    machine.answers["image inspect"] = {UPDATED: "2026-01-01T00:00:00"}
    assert states(machine, "updates") == ["advice"]


def test_a_service_that_runs_an_earlier_image(machine: Machine) -> None:
    machine.answers.update({"ps": "abc", "inspect": [container()], **together()})
    machine.answers["image inspect"] = "sha256:1"
    assert states(machine, "versions") == ["ok"]
    machine.answers["image inspect"] = "sha256:2"
    assert states(machine, "versions") == ["warning", "ok"]


def together() -> dict[str, Any]:
    """Layers of images that stand on each other."""
    found: dict[str, Any] = {"base": ["a"]}
    for image in images.IMAGES:
        found[image.name] = [*found[image.base], image.name]
    return {f"{LAYERS} labcommons/{name}": layers for name, layers in found.items()}


def test_images_of_several_versions(machine: Machine) -> None:
    """An upgrade that ended half-way: the hub is new, what is built on it is not."""
    machine.answers.update(together())
    machine.answers[f"{LAYERS} labcommons/hub"] = ["a", "newer"]
    del machine.answers[f"{LAYERS} labcommons/server"]
    rows = doctor.examine(machine, {"versions": host_checks.CHECKS["versions"]})
    found = {one["about"]: one["state"] for one in rows if one["about"]}
    assert found == {"builder": "warning", "server": "broken"}


def test_a_checkout_that_went_on_without_the_site(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.answers.update(together())
    head = str(host_checks.output(["git", "-C", str(host_checks.ROOT), "rev-parse", "HEAD"]))
    for was, state in ((f"{head[:12]}+", "ok"), (None, "ok"), ("0123456789ab", "warning")):
        monkeypatch.setattr(host_checks, "brought_up", lambda was=was: was)
        assert states(machine, "versions") == [state]


def test_the_perimeters_keeper(machine: Machine) -> None:
    assert states(machine, "perimeter") == ["broken"]
    keeper = container()
    keeper["Config"]["Labels"]["com.docker.compose.service"] = "perimeter"
    again = Machine({}, machine.settings)
    said = {"ps": "abc", "inspect": [keeper], "exec": {"problem": "the table is gone"}}
    object.__setattr__(again, "answers", said)
    assert states(again, "perimeter") == ["broken"]
    said["exec"] = {"problem": ""}
    assert states(again, "perimeter") == ["ok"]


def test_every_check_has_a_test_here() -> None:
    text = Path(__file__).read_text("utf-8")
    assert [name for name in host_checks.CHECKS if f'"{name}")' not in text] == []


def test_without_a_hub_it_says_why(machine: Machine) -> None:
    machine.answers.update({"ps": "abc", "inspect": [container(status="restarting")]})
    rows = doctor.ask_hub(machine, [], [])
    assert [one["state"] for one in rows] == ["broken"]
    assert "database is locked" in rows[0]["cause"]["en"]


def test_a_hub_whose_checks_do_not_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.answers.update({"ps": "abc", "inspect": [container()]})
    failed = subprocess.CompletedProcess([], 1, stdout="", stderr="no such command")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_words, **_named: failed)
    rows = doctor.ask_hub(machine, [], [])
    assert "no such command" in rows[0]["cause"]["en"]


def test_exit_codes() -> None:
    assert doctor.exit_code([row("a", "ok", ("", "")), row("a", "advice", ("", ""))]) == 0
    assert doctor.exit_code([row("a", "unknown", ("", ""))]) == 1
    assert doctor.exit_code([row("a", "warning", ("", "")), row("a", "broken", ("", ""))]) == 2


def test_it_speaks_the_terminals_language(capsys: pytest.CaptureFixture[str]) -> None:
    one = row("disk", "warning", ("full", "已满"), ("make room", "请清理"), "data/")
    doctor.show([one], {"LANG": "zh_CN.UTF-8"})
    doctor.show([one], {"LANG": "C.UTF-8"})
    assert capsys.readouterr().out == (
        "warning  disk data/: 已满\n         -> 请清理\n"
        "warning  disk data/: full\n         -> make room\n"
    )

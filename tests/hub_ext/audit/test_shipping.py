"""Events arrive: none lost, and none twice where the target can tell."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commons.audit import Chain, make_event
from commons.audit.chain import files
from commons.audit.reading import Filter, events
from commons.site import AuditTarget
from hub_ext.audit import targets
from hub_ext.audit.shipper import Shipper, Standing
from rig.certificates import Authority
from rig.siem import Rsyslog, Siem, answering


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "ACK_EVERY", 0.01)
    monkeypatch.setattr(targets, "ACK_WITHIN", 0.05)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def write(root: Path, count: int, writer: str = "hub", **more: Any) -> None:
    chain = Chain(root / writer, writer)
    chain.append([make_event("login", "success", user=f"p{n}", **more) for n in range(count)])


def target(root: Path, siem: Siem, kind: str = "elasticsearch", **more: Any) -> Shipper:
    secrets = root.parent / "shipping"
    secrets.mkdir(exist_ok=True)
    (secrets / "siem.token").write_text("s3cret-token\n")
    settings = AuditTarget.model_validate({"name": "siem", "kind": kind, "url": siem.url, **more})
    return Shipper(root, targets.make(settings, secrets), TOLD.append_two)


class _Told(list[tuple[str, dict[str, Any]]]):
    def append_two(self, outcome: str, details: dict[str, Any]) -> None:
        self.append((outcome, details))


TOLD = _Told()


def all_sent(one: Shipper, most: int = 60) -> int:
    """Steps until nothing is left to be sent, without the pauses."""
    for step in range(most):
        one.step()
        if one.behind() == 0 and not one.standing.problem:
            return step
    raise AssertionError(one.standing)


def numbers(found: Any) -> list[int]:
    return sorted(event["event"]["sequence"] for event in found)


WAYS = ["503", "429", "close", "half", "kept"]


@pytest.mark.parametrize(
    ("kind", "how"),
    # Splunk answers for a batch as a whole.
    [*((kind, how) for kind in ("elasticsearch", "splunk") for how in WAYS),
     ("elasticsearch", "busy")],
)  # fmt: skip
def test_whatever_a_target_answers_each_event_arrives(root: Path, kind: str, how: str) -> None:
    write(root, 7)
    with answering(Siem(how, how)) as siem:
        one = target(root, siem, kind)
        all_sent(one)
        found = list(siem.events.values()) if kind == "elasticsearch" else siem.order
    assert set(numbers(found)) == set(range(1, 8))
    # Splunk cannot tell what it has already: a batch whose answer was lost is there again.
    assert len(found) == (21 if kind == "splunk" and how in ("half", "kept") else 7)
    assert one.standing.sent == 7


def test_what_is_not_acknowledged_is_sent_again(root: Path) -> None:
    """Kind: a target that answers 200 and drops: Splunk tells, with acknowledgement."""
    write(root, 3)
    with answering(Siem("drop")) as siem:
        one = target(root, siem, "splunk")
        assert one.step() > 0
        assert "acknowledge" in one.standing.problem
        all_sent(one)
        assert numbers(siem.order) == [1, 2, 3]


def test_what_a_target_never_takes_is_told_and_holds_nothing_up(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(root, 3)
    TOLD.clear()
    with answering(Siem("mapping")) as siem:
        one = target(root, siem)
        all_sent(one)
        assert numbers(siem.events.values()) == [2, 3]
    assert (one.standing.sent, one.standing.refused) == (2, 1)
    assert '"p0"' in caplog.text
    assert [outcome for outcome, _ in TOLD] == ["failure"]


def test_a_batch_that_is_too_large_is_sent_in_parts(root: Path) -> None:
    write(root, 8)
    with answering(Siem("large", "large", "large")) as siem:
        all_sent(target(root, siem))
        assert numbers(siem.events.values()) == list(range(1, 9))


def test_a_target_that_was_away_for_a_day_gets_all_in_order_and_the_trail_says_so(
    root: Path,
) -> None:
    TOLD.clear()
    with answering(Siem()) as siem:
        one = target(root, siem)
        write(root, 5)
        all_sent(one)
    for _ in range(20):
        write(root, 100)
        assert one.step() > 0
    since = one.standing.since
    assert since
    with answering(siem, int(siem.url.rpartition(":")[2])):
        all_sent(one)
        assert list(siem.events.values()) == list(events(root, Filter()))
    assert [outcome for outcome, _ in TOLD] == ["failure", "success"]


def test_rotations_and_outages_lose_nothing_and_double_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some days' files of three writers, with a target that fails in all ways."""
    from commons.audit import chain as chains

    class Clock(chains.datetime):  # type: ignore[misc, name-defined]
        day = 1

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls(2026, 1 + cls.day // 28, 1 + cls.day % 28, tzinfo=tz)

    monkeypatch.setattr(chains, "datetime", Clock)
    ways = ["503", "kept", "half", "close", "429"]
    with answering(Siem(*ways * 4)) as siem:
        one = target(root, siem)
        for day in range(100):
            Clock.day = day
            for writer in ("hub", "console", "command"):
                write(root, 3, writer)
            one.step()
            if day % 9 == 0:
                one = target(root, siem)  # as after a kill
        all_sent(one)
        assert len(files(root / "hub")) == 100
        assert len(siem.events) == 900
        assert {e["labcommons"]["chain"]["writer"]: 0 for e in siem.events.values()}.keys() == {
            "hub", "console", "command"
        }  # fmt: skip


SHIPPER = """
import sys, threading
from pathlib import Path
from commons.site import AuditTarget
from hub_ext.audit import targets
from hub_ext.audit.shipper import Shipper
root, url, secrets = sys.argv[1:]
settings = AuditTarget(name="siem", kind="elasticsearch", url=url)
print("begun", flush=True)
Shipper(Path(root), targets.make(settings, Path(secrets)), lambda *_: None).run(threading.Event())
"""


def test_a_shipper_that_is_killed_anywhere_loses_and_doubles_nothing(root: Path) -> None:
    secrets = root.parent / "shipping"
    secrets.mkdir()
    with answering(Siem()) as siem:
        for round_ in range(6):
            write(root, 2000)
            command = [sys.executable, "-c", SHIPPER, str(root), siem.url, str(secrets)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(0.03 * round_)
                process.kill()
        all_sent(target(root, siem))
        assert numbers(siem.events.values()) == list(range(1, 12_001))


def test_half_a_line_waits_until_it_is_whole_and_a_torn_one_is_left_out(root: Path) -> None:
    write(root, 2)
    [path] = files(root / "hub")
    with answering(Siem()) as siem:
        one = target(root, siem)
        with path.open("ab") as file:
            file.write(b'{"torn')
        one.step()
        assert numbers(siem.events.values()) == [1, 2]
        write(root, 1)
        all_sent(one)
        assert numbers(siem.events.values()) == [1, 2, 3]


def test_its_place_that_cannot_be_read_says_so(root: Path) -> None:
    path = root / "targets" / "siem.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"places": 3}')
    with pytest.raises(ValueError, match=r"siem\.json cannot be read"):
        Standing.read(path)


def test_a_missing_token_and_a_wrong_certificate_are_told_and_tried_again(root: Path) -> None:
    write(root, 1)
    with answering(Siem()) as siem:
        one = target(root, siem, "splunk")
        (root.parent / "shipping" / "siem.token").unlink()
        assert one.step() > 0
        assert "siem.token" in one.standing.problem
        (root.parent / "shipping" / "siem.ca.crt").write_text("no certificate")
        one.target.settings = one.target.settings.model_copy(update={"url": "https://127.0.0.1:1"})
        (root.parent / "shipping" / "siem.token").write_text("t")
        one.step()
        assert "certificates cannot be read" in one.standing.problem


def test_secrets_go_to_the_target_and_nowhere_else(root: Path) -> None:
    write(root, 1)
    with answering(Siem("503")) as siem:
        one = target(root, siem)
        all_sent(one)
        assert siem.asked[-1]["Authorization"] == "ApiKey s3cret-token"
    kept = b"".join(path.read_bytes() for path in root.rglob("*") if path.is_file())
    assert b"s3cret" not in kept


@pytest.fixture
def rsyslog(tmp_path: Path) -> Iterator[tuple[Rsyslog, Callable[[], Shipper]]]:
    (tmp_path / "ca").mkdir()
    ca = Authority(tmp_path / "ca")
    crt, key = ca.issue("localhost")
    server = Rsyslog(tmp_path / "rsyslog", ca.ca_file, crt, key)
    secrets = tmp_path / "shipping"
    secrets.mkdir()
    (secrets / "siem.ca.crt").write_bytes(ca.ca_file.read_bytes())
    settings = AuditTarget(name="siem", kind="syslog", url=f"tls://localhost:{server.port}")

    def make() -> Shipper:
        return Shipper(tmp_path / "audit", targets.make(settings, secrets), lambda *_: None)

    yield server, make
    server.stop()


def test_a_real_rsyslog_gets_every_event_over_tls(
    root: Path, rsyslog: tuple[Rsyslog, Callable[[], Shipper]]
) -> None:
    server, make = rsyslog
    one = make()
    write(root, 600, details={"text": "zh 中文 " + "x" * 2000})
    assert one.step() > 0, "nobody is there yet"
    server.start()
    all_sent(one)
    wait(lambda: len(server.events()) >= 600)
    assert numbers(server.events()) == list(range(1, 601))
    assert server.events() == list(events(root, Filter()))
    # Restarted between batches, as an update does.
    for _ in range(3):
        server.stop()
        write(root, 50)
        one.step()
        server.start()
        all_sent(one)
    wait(lambda: len(server.events()) >= 750)
    assert numbers(server.events()) == list(range(1, 751))


def test_a_syslog_server_of_another_certificate_gets_nothing(
    root: Path, tmp_path: Path, rsyslog: tuple[Rsyslog, Callable[[], Shipper]]
) -> None:
    server, make = rsyslog
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    (tmp_path / "shipping" / "siem.ca.crt").write_bytes(other.ca_file.read_bytes())
    server.start()
    write(root, 1)
    one = make()
    assert one.step() > 0
    assert "certificate" in one.standing.problem.lower()
    assert server.events() == []


def wait(condition: Callable[[], bool]) -> None:
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("not so in time")


def test_it_stops_at_once_when_it_is_told(root: Path) -> None:
    stop = threading.Event()
    with answering(Siem()) as siem:
        thread = threading.Thread(target=target(root, siem).run, args=(stop,))
        thread.start()
        stop.set()
        thread.join(10)
    assert not thread.is_alive()

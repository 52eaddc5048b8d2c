"""Chains of the audit trail: what is written stays, and what was done to them is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from commons.audit import AuditTrail, Chain, make_event
from commons.audit import chain as chains
from commons.audit.chain import MAX_LINE, Head, files
from commons.audit.reading import Filter, Finding, events, verify
from commons.audit.requests import Recently, of_hub
from commons.site import Audit
from hub_ext.audit.service import Keeper, checking

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
CHECK = checking(KEY.public_key())


def event(name: str = "alice", action: str = "login", **more: Any) -> dict[str, Any]:
    return make_event(action, "success", user=name, **more)


def keeper(root: Path, **settings: Any) -> Keeper:
    return Keeper(root, Audit(**settings), KEY, root)


def kinds(root: Path) -> list[str]:
    return [finding.kind for finding in verify(root, CHECK).findings]


def lines(root: Path, writer: str = "hub") -> list[bytes]:
    return b"".join(path.read_bytes() for path in files(root / writer)).splitlines(keepends=True)


def put(root: Path, new: list[bytes], writer: str = "hub") -> None:
    [path] = files(root / writer)
    path.write_bytes(b"".join(new))


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Ten events, and a checkpoint after the seventh."""
    hub = Chain(tmp_path / "hub", "hub")
    hub.append([event(f"p{n}") for n in range(7)])
    assert keeper(tmp_path).checkpoint()
    hub.append([event(f"p{n}") for n in range(7, 10)])
    return tmp_path


def test_lines_are_numbered_chained_and_only_the_owners(written: Path) -> None:
    found = [json.loads(line) for line in lines(written)]
    assert [one["event"]["sequence"] for one in found] == list(range(1, 11))
    assert files(written / "hub")[0].stat().st_mode & 0o777 == 0o600
    result = verify(written, CHECK)
    assert result.whole
    assert result.lines == {"audit": 1, "hub": 10}
    assert result.checkpoints == 1


def changed(found: list[bytes]) -> list[bytes]:
    return [*found[:3], found[3].replace(b'"p3"', b'"px"'), *found[4:]]


@pytest.mark.parametrize(
    ("done", "told"),
    [
        (changed, ["changed"]),
        (lambda found: [*found[:3], *found[4:]], ["removed"]),
        (lambda found: found[:5], ["truncated"]),
        (lambda found: [*found[:3], found[4], found[3], *found[5:]], ["removed", "added"]),
        (lambda found: [*found[:4], found[1], *found[4:]], ["added"]),
        (lambda found: [*found[:4], b'{"what": 1}\n', *found[4:]], ["torn"]),
        (lambda found: found[2:], ["removed"]),
        (lambda found: [], ["truncated"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_was_done_to_a_chain_is_told(written: Path, done: Any, told: list[str]) -> None:
    put(written, done(lines(written)))
    assert kinds(written) == told
    assert verify(written, CHECK).whole == (told == ["torn"])


def test_a_chain_that_is_gone_or_written_anew_does_not_fit_the_checkpoints(written: Path) -> None:
    shutil.rmtree(written / "hub")
    assert kinds(written) == ["truncated"]
    Chain(written / "hub", "hub").append([event(f"q{n}") for n in range(12)])
    assert kinds(written) == ["rewritten"]


def test_a_checkpoint_of_another_key_counts_for_nothing(written: Path) -> None:
    other = Ed25519PrivateKey.generate()
    Keeper(written, Audit(), other, written).checkpoint()
    assert kinds(written) == ["unsigned"]


def test_half_a_line_is_told_and_the_chain_goes_on(written: Path) -> None:
    [path] = files(written / "hub")
    with path.open("ab") as file:
        file.write(b'{"@timestamp": "2026')
    Chain(written / "hub", "hub").append([event("after")])
    result = verify(written, CHECK)
    assert result.whole
    assert result.findings == [Finding("torn", f"hub/{path.name}", 11)]
    assert result.lines["hub"] == 11


def test_days_are_files_and_a_clock_that_goes_back_writes_on_in_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Chain(tmp_path / "hub", "hub")
    for day in ("2026-11-26", "2026-11-27", "2026-11-25", "2026-11-28"):
        clock(monkeypatch, day)
        hub.append([event(day)])
    assert [path.stem for path in files(tmp_path / "hub")] == [
        "2026-11-26", "2026-11-27", "2026-11-28"
    ]  # fmt: skip
    assert verify(tmp_path).whole
    assert verify(tmp_path).lines == {"hub": 4}


def clock(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    class Clock(chains.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromisoformat(f"{day}T12:00:00+00:00")

    monkeypatch.setattr(chains, "datetime", Clock)


def test_several_processes_and_threads_are_one_writer(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from commons.audit import Chain, make_event\n"
        "chain = Chain(Path(sys.argv[1]), 'hub')\n"
        "for n in range(50): chain.append([make_event('login', 'success', user=str(n))])"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "hub")]) for _ in range(3)
    ]
    trail = AuditTrail(Chain(tmp_path / "hub", "hub"))
    for n in range(50):
        trail.record(event(str(n)))
    trail.close()
    assert [other.wait(60) for other in others] == [0, 0, 0]
    result = verify(tmp_path)
    assert result.findings == []
    assert result.lines == {"hub": 200}


def test_a_writer_that_is_killed_anywhere_loses_nothing_it_said_was_written(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from commons.audit import Chain, make_event\n"
        "chain = Chain(Path(sys.argv[1]), 'hub')\n"
        "while True:\n"
        "    head = chain.append([make_event('login', 'success', user='x' * 200)] * 3)\n"
        "    print(head.sequence, flush=True)"
    )
    said = 0
    for n in range(8):
        command = [sys.executable, "-c", program, str(tmp_path / "hub")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(5 + n):
                said = int(writer.stdout.readline())
            writer.kill()
    result = verify(tmp_path)
    assert result.whole
    assert result.lines["hub"] >= said > 100


def test_a_full_disk_leaves_whole_lines_and_is_told_when_it_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trail = AuditTrail(Chain(tmp_path / "hub", "hub"))
    trail.record(event("before"))
    trail.close()
    real = os.write

    def half(file: int, data: bytes) -> int:
        if len(data) < 100:
            raise OSError(28, "No space left on device")
        return real(file, bytes(data[: len(data) // 2]))

    monkeypatch.setattr(os, "write", half)
    trail.record(event("meanwhile"))
    trail.close()
    monkeypatch.setattr(os, "write", real)
    assert "No space left" in caplog.text
    assert '"meanwhile"' in caplog.text
    trail.record(event("after"))
    trail.close()
    found = list(events(tmp_path, Filter()))
    assert [one["event"]["action"] for one in found] == ["login", "audit-gap", "login"]
    assert found[1]["labcommons"]["in_the_log_alone"] == 1
    assert verify(tmp_path).findings == []


def test_what_is_too_long_loses_its_details_and_says_so(tmp_path: Path) -> None:
    Chain(tmp_path / "hub", "hub").append([event(details={"text": "x" * 2**20}), event()])
    first, second = events(tmp_path, Filter())
    assert first["labcommons"]["too_long"]["bytes"] > 2**20
    assert max(map(len, lines(tmp_path))) < MAX_LINE
    assert verify(tmp_path).whole
    assert second["event"]["sequence"] == 2


def test_nothing_in_a_name_ends_a_line_or_turns_it_around(tmp_path: Path) -> None:
    name = 'a\n{"event": 1}\u202e\ud800\x1b[31m'
    Chain(tmp_path / "hub", "hub").append([event(name)])
    [line] = lines(tmp_path)
    assert line.isascii()
    assert line.rstrip(b"\n").decode().isprintable()
    assert json.loads(line)["user"]["name"] == name


@settings(max_examples=60)
@given(st.data())
def test_any_change_before_a_checkpoint_is_found(
    tmp_path_factory: Any, data: st.DataObject
) -> None:
    """Property: whatever is done to the bytes that a checkpoint covers, ``verify`` sees it."""
    root = tmp_path_factory.mktemp("trail")
    Chain(root / "hub", "hub").append([event(f"p{n}") for n in range(6)])
    keeper(root).checkpoint()
    [path] = files(root / "hub")
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    match data.draw(st.sampled_from(["flip", "cut", "insert"])):
        case "flip":
            new = whole[:at] + bytes([whole[at] ^ data.draw(st.integers(1, 255))]) + whole[at + 1 :]
        case "cut":
            new = whole[:at] + whole[data.draw(st.integers(at + 1, len(whole))) :]
        case _:
            new = whole[:at] + data.draw(st.binary(min_size=1, max_size=20)) + whole[at:]
    path.write_bytes(new)
    result = verify(root, CHECK)
    same = [json.loads(line) for line in whole.splitlines()]
    read = list(events(root, Filter(writer="hub")))
    assert result.findings or read == same


def test_old_days_go_once_every_target_has_them_and_the_rest_can_still_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = Chain(tmp_path / "hub", "hub")
    for day in ("2026-10-01", "2026-10-02", "2026-11-27"):
        clock(monkeypatch, day)
        hub.append([event(day), event(day)])
    target = {"name": "siem", "kind": "elasticsearch", "url": "https://es.example.org"}
    with_target = keeper(tmp_path, keep_days=30, targets=[target])
    now = chains.datetime.now()
    assert with_target.retire(now) == []
    without = keeper(tmp_path, keep_days=30)
    assert [path.stem for path in without.retire(now)] == ["2026-10-01", "2026-10-02"]
    result = verify(tmp_path, CHECK)
    assert result.findings == []
    assert result.lines["hub"] == 2
    # A kill before they were removed leaves them to the next day, and nothing to complain of.
    (tmp_path / "hub" / "2026-10-02.jsonl").write_bytes(
        b"".join(lines(tmp_path)).replace(b'"sequence":5', b'"sequence":3')
    )
    assert [one.kind for one in verify(tmp_path, CHECK).findings if not one.harmless] != []
    assert without.retire(now)


def test_a_thread_that_follows_sees_every_event_once(tmp_path: Path) -> None:
    trail = AuditTrail(Chain(tmp_path / "hub", "hub"))
    seen: set[int] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.update(one["event"]["sequence"] for one in events(tmp_path, Filter()))
            time.sleep(0.01)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(300):
        trail.record(event(str(n)))
    trail.close()
    stop.set()
    reader.join()
    seen.update(one["event"]["sequence"] for one in events(tmp_path, Filter()))
    assert seen == set(range(1, 301))


def test_filters_by_person_action_time_and_word(written: Path) -> None:
    Chain(written / "console", "console").append(
        [event("carol", "quota-change", details={"subject": "group:vision"})]
    )

    def found(**wanted: str) -> list[str]:
        return [one["user"]["name"] for one in events(written, Filter(**wanted))]

    assert found(person="p3") == ["p3"]
    assert found(action="quota-change") == ["carol"]
    assert found(about="vision") == ["carol"]
    assert found(writer="console") == ["carol"]
    assert found(since="2999") == found(until="2000") == []
    assert len(found()) == 12


OWNERS = {"jupyterhub-user-alice": "alice", "jupyterhub-user-alice-b": "alice-b"}


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (("POST", "/hub/api/users/alice/tokens", 201, "alice"), ("token-change", "")),
        (("DELETE", "/hub/api/users/bob/tokens/a1", 204, "carol"), ("token-change", "bob")),
        (("POST", "/hub/api/users/alice/activity", 200, "alice"), None),
        (("POST", "/hub/login", 302, "alice"), None),
        (("DELETE", "/hub/api/users/bob", 204, "carol"), ("user-change", "bob")),
        (("POST", "/hub/api/users/bob/servers/x", 202, "carol"), ("server-request", "bob")),
        (("POST", "/hub/spawn/alice", 302, "alice"), ("server-request", "")),
        (("POST", "/hub/api/shutdown", 202, "carol"), ("hub-change", "")),
        (("GET", "/hub/api/users/bob", 200, "carol"), ("look", "bob")),
        (("GET", "/hub/api/users/bob", 200, "service:labcommons"), None),
        (("GET", "/hub/api/users/alice", 200, "alice"), None),
        (("GET", "/hub/api/users/bob", 404, "carol"), None),
        (("GET", "/hub/admin", 403, "alice"), ("access-denied", "")),
        (("GET", "/hub/api/users", 403, ""), None),
        (("GET", "/hub/api/oauth2/authorize?client_id=jupyterhub-user-alice-b", 302, "alice"),
         ("look", "alice-b")),
        (("GET", "/hub/api/oauth2/authorize?client_id=jupyterhub-user-alice", 302, "alice"), None),
        (("GET", "/hub/api/oauth2/authorize?client_id=service-labcommons", 302, "alice"), None),
    ],
)  # fmt: skip
def test_what_of_a_request_to_the_hub_is_recorded(request_: Any, told: Any) -> None:
    seen = of_hub(*request_, token=False, owner_of=lambda client: OWNERS.get(client, ""))
    assert (seen and (seen.action, seen.about)) == told


def test_a_bad_token_is_recorded_and_a_program_that_asks_on_once_a_minute() -> None:
    seen = of_hub("GET", "/hub/api/users", 403, "", token=True, owner_of=str)
    assert seen is not None
    assert seen.reason == "bad_token"
    recently = Recently()
    assert [recently.new("access-denied", "192.0.2.1", "/hub/api") for _ in range(3)] == [
        True, False, False
    ]  # fmt: skip


def test_heads_of_nothing(tmp_path: Path) -> None:
    assert chains.last(tmp_path / "nowhere") == (Head(), False)
    assert verify(tmp_path / "nowhere").whole


def test_who_looks_through_the_chains_writes_down_what_is_wrong_once(written: Path) -> None:
    one = keeper(written)
    one.look()
    state = written / "audit" / "state.json"
    assert json.loads(state.read_text())["wrong"] == []
    put(written, changed(lines(written)))
    one.look()
    one.look()
    assert json.loads(state.read_text())["count"] == 1
    found = [e["event"]["action"] for e in events(written, Filter(writer="audit"))]
    assert found == ["audit-checkpoint", "audit-broken"]

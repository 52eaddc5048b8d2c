"""Reservations are promises: whatever is decided later takes none of their GPUs. And each promise
that docs/gpu.md makes names a test that is there.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from commons.leases import LeaseState
from rig.lab import Lab, machine, request
from spawner.gpu.policy.extension import allowed, reasons_against
from spawner.gpu.policy.promises import unkept
from spawner.gpu.policy.state import HOUR, Quota, Slot, Window

NOW = 1_800_000_000.0
FAR = NOW + 30 * 24 * HOUR


def window(start: float, end: float, gpus: int = 1, name: str = "r", **more: object) -> Window:
    return Window(name, "Lecture", "course:ml", NOW + start, NOW + end, gpus, **more)  # type: ignore[arg-type]


def holding(lab: Lab, name: str, device: int, hours: float | None, account: str = "") -> None:
    ends = None if hours is None else NOW + hours * HOUR
    lab.claims[name] = replace(
        request(name, name, NOW, 1, account, None if hours is None else hours * HOUR),
        state=LeaseState.ACTIVE,
        slots=(Slot(lab.devices[device].id),),
        held_at=NOW,
        ends_at=ends,
        weight=1.0,
    )


def codes(lab: Lab) -> list[list[str]]:
    return [[reason.code for reason in one.reasons] for one in unkept(lab.snapshot(), FAR)]


def test_a_lease_that_runs_into_a_window_is_not_extended_through_it() -> None:
    """Shelf.nu 3036: the window begins before the lease's present end."""
    lab = Lab(machine("n", 2), windows=[window(HOUR, 4 * HOUR, 2)])
    holding(lab, "alice", 0, 1.5)
    [why] = reasons_against("alice", 2 * HOUR, lab.snapshot())
    assert why.code == "extend_reserved"
    assert allowed("alice", 2 * HOUR, lab.snapshot())[0] == 0
    lab.windows = [window(HOUR, 4 * HOUR, 1)]  # the other GPU is enough
    assert allowed("alice", 2 * HOUR, lab.snapshot()) == (2 * HOUR, ())
    holding(lab, "bob", 1, 1.2)  # which bob holds until it is needed
    assert allowed("alice", 2 * HOUR, lab.snapshot())[0] == 2 * HOUR
    holding(lab, "bob", 1, None)
    assert allowed("alice", 2 * HOUR, lab.snapshot())[0] == 0


@pytest.mark.parametrize(
    ("subject", "quota", "code"),
    [
        ("default", Quota(max_gpus=1), "person_gpus"),
        ("default", Quota(ceiling=1), "person_ceiling"),
        ("default", Quota(own_gpus=0), "person_own"),
        ("user:alice", Quota(max_gpus=0), "person_gpus"),
        ("user:alice", Quota(max_by_type={"A100": 1}), "person_type"),
        ("user:alice", Quota(max_by_type={"other": 0}), None),
        ("group:lab", Quota(grp_gpus=0), None),
    ],
)
def test_what_was_lowered_meanwhile_ends_nothing_and_makes_nothing_longer(
    subject: str, quota: Quota, code: str | None
) -> None:
    """Kind: what was right when it was granted is looked at again when it is extended."""
    lab = Lab(machine("n", 3))
    for device, name in enumerate(("alice", "alice2")):
        holding(lab, name, device, 2)
        lab.claims[name] = replace(lab.claims[name], user="alice", account="user:alice")
    holding(lab, "bob", 2, 2)
    lab.quotas[subject] = quota
    for name in ("alice", "alice2"):
        found = [r.code for r in reasons_against(name, HOUR, lab.snapshot())]
        assert found == ([code] if code else [])
    if subject != "default" or quota.own_gpus is None:
        assert not reasons_against("bob", HOUR, lab.snapshot())
    if code in ("person_gpus", "person_ceiling", "person_type") and quota.max_gpus != 0:
        del lab.claims["alice2"]  # one has ended: the other is within the limit
        assert not reasons_against("alice", HOUR, lab.snapshot())


def test_whom_it_is_for_may_go_on_in_their_own_window() -> None:
    lab = Lab(machine("n", 1), windows=[window(HOUR, 4 * HOUR)])
    holding(lab, "student", 0, 1.5, "course:ml")
    assert allowed("student", HOUR, lab.snapshot()) == (HOUR, ())
    assert not unkept(lab.snapshot(), FAR)


def test_two_windows_count_together() -> None:
    """Each alone leaves a GPU; together they need all."""
    lab = Lab(machine("n", 3))
    lab.windows = [window(HOUR, 9 * HOUR, 1, "a"), window(2 * HOUR, 9 * HOUR, 2, "b")]
    holding(lab, "alice", 0, 1)
    assert allowed("alice", 2 * HOUR, lab.snapshot())[0] == HOUR
    lab.windows = [window(HOUR, 9 * HOUR, 1, "a")]
    assert allowed("alice", 2 * HOUR, lab.snapshot())[0] == 2 * HOUR


def test_every_reason_why_a_reservation_cannot_be_kept() -> None:
    """Kind: promises that nobody can keep, made in silence."""
    lab = Lab(machine("n", 2), windows=[window(HOUR, 4 * HOUR, 2)])
    assert codes(lab) == []
    lab.devices = [replace(device, drained=True) for device in lab.devices]
    assert codes(lab) == [["reserved_out_of_service"]]
    lab.devices = machine("n", 2)
    holding(lab, "alice", 0, None)
    assert codes(lab) == [["reserved_in_use"]]
    assert "until" not in unkept(lab.snapshot(), FAR)[0].reasons[0].params
    holding(lab, "alice", 0, 1.5)
    (short,) = unkept(lab.snapshot(), FAR)
    assert (short.missing, short.until) == (1, NOW + 1.5 * HOUR)
    assert short.reasons[0].params["until"] == NOW + 1.5 * HOUR
    lab.claims.clear()
    for said in (Quota(grp_gpus=1), Quota(nominal=1), Quota(grp_by_type={"A100": 0})):
        lab.quotas = {"course:ml": said}
        lab.windows = [window(HOUR, 4 * HOUR, 2, gpu_type="A100")]
        assert codes(lab) == [["reserved_over_limit"]]
    lab.quotas = {"course:ml": Quota(grp_gpus=2, max_gpus=1)}  # that is each person's
    assert codes(lab) == []


TESTS = Path(__file__).resolve().parents[2]
PAGE = (TESTS.parent / "docs" / "gpu.md").read_text("utf-8").split("\n## ")[1]
ROWS = [row.strip("| ").split(" | ") for row in re.findall(r"^\|.*", PAGE, re.M)[2:]]


@pytest.mark.parametrize(("promise", "named"), ROWS, ids=[promise[:40] for promise, _ in ROWS])
def test_each_promise_of_the_page_has_the_tests_that_it_names(promise: str, named: str) -> None:
    file, names = "test_policy_properties.py", re.findall(r"`([\w.]+)`", named)
    assert names, promise
    for name in names:
        file = name if name.endswith(".py") else file
        texts = [path.read_text("utf-8") for path in TESTS.rglob(file)]
        assert texts, f"{promise}: there is no {file}"
        assert name == file or any(f"def {name}(" in text for text in texts), f"{promise}: {name}"

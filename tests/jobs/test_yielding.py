"""Which preemptible jobs end for whom: the fewest, the youngest first, and none in vain."""

from __future__ import annotations

from commons.leases import LeaseState
from jobs.yielding import victims
from spawner.gpu.policy.placement import Device
from spawner.gpu.policy.state import Claim, Quota, Slot, Snapshot

NOW = 1_800_000_000.0


def devices(count: int, model: str = "T4") -> tuple[Device, ...]:
    return tuple(Device(id=f"{model}-{n}", model=model, memory=1) for n in range(count))


def held(one: str, *slots: str, age: float = 100.0, user: str = "alice") -> Claim:
    return Claim(
        id=one,
        user=user,
        account=f"user:{user}",
        state=LeaseState.ACTIVE,
        gpus=len(slots),
        requested_at=NOW - age,
        held_at=NOW - age,
        slots=tuple(Slot(slot) for slot in slots),
        weight=float(len(slots)),
    )


def waits(one: str, gpus: int = 1, model: str = "", user: str = "bob") -> Claim:
    return Claim(one, user, f"user:{user}", LeaseState.QUEUED, gpus, NOW - 5, gpu_type=model)


def snapshot(
    devices: tuple[Device, ...], *claims: Claim, quotas: dict[str, Quota] | None = None
) -> Snapshot:
    return Snapshot(NOW, devices, claims, quotas or {})


def test_the_youngest_ends_and_no_other() -> None:
    two = snapshot(devices(2), held("old", "T4-0"), held("new", "T4-1", age=10), waits("b"))
    assert victims(two, {"old", "new"}) == ("new",)


def test_two_end_for_who_wants_two() -> None:
    two = snapshot(devices(2), held("old", "T4-0"), held("new", "T4-1", age=10), waits("b", 2))
    assert set(victims(two, {"old", "new"})) == {"old", "new"}


def test_none_ends_for_another_model_or_where_a_limit_is_in_the_way() -> None:
    mixed = devices(1) + devices(1, "A100")
    other = held("his", "A100-0", user="carol")
    assert victims(snapshot(mixed, held("a", "T4-0"), other, waits("b", 1, "A100")), {"a"}) == ()
    full = snapshot(
        mixed,
        held("a", "T4-0"),
        held("hers", "A100-0", user="bob"),
        waits("b"),
        quotas={"default": Quota(max_gpus=1)},
    )
    assert victims(full, {"a"}) == ()


def test_one_that_ends_already_is_enough() -> None:
    two = snapshot(devices(2), held("old", "T4-0"), held("new", "T4-1", age=10), waits("b"))
    assert victims(two, {"old", "new"}, {"old"}) == ()


def test_none_ends_for_another_of_its_kind() -> None:
    one = snapshot(devices(1), held("a", "T4-0"), waits("b"))
    assert victims(one, {"a", "b"}) == ()

"""How many GPUs there are and how many are free."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spawner.gpu.policy.placement import Device, count_types


@given(
    st.lists(st.tuples(st.sampled_from(["A100", "T4"]), st.integers(1, 4)), max_size=6),
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 3)), max_size=12),
)
def test_every_slot_is_free_or_taken_and_nothing_else_counts(
    kinds: list[tuple[str, int]], taken: set[tuple[int, int]]
) -> None:
    devices = [Device(f"GPU-{n}", model, 2**30, slots=k) for n, (model, k) in enumerate(kinds)]
    real = {(f"GPU-{n}", slot) for n, slot in taken if n < len(kinds) and slot < kinds[n][1]}
    gone = {("GPU-gone", 0)}
    found = count_types(devices, real | gone)
    assert found.total == sum(slots for _, slots in kinds)
    assert found.total - found.free == len(real)
    for kind in found.types:
        of_model = {device.id for device in devices if device.model == kind.model}
        assert kind.total - kind.free == sum(device in of_model for device, _ in real)


def test_a_type_is_as_large_as_its_largest_device() -> None:
    (kind,) = count_types([Device("a", "T4", 15), Device("b", "T4", 16)], []).types
    assert (kind.memory, kind.total, kind.free) == (16, 2, 2)

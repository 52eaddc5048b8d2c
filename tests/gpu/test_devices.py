"""The choice of devices is a pure function: properties over all inputs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spawner.errors import BadRequest, NotAvailable, SpawnerError
from spawner.gpu.devices import Device, choose_devices, count_types

MODELS = ["A100", "T4", "L40S"]


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Device], set[str], int, str]:
    devices = [
        Device(f"GPU-{n}", draw(st.sampled_from(MODELS)), 2**30 * draw(st.integers(1, 80)))
        for n in range(draw(st.integers(0, 8)))
    ]
    ids = [device.id for device in devices]
    leased = draw(st.sets(st.sampled_from(ids))) if ids else set()
    return devices, leased, draw(st.integers(1, 9)), draw(st.sampled_from(["", *MODELS, "H100"]))


@given(situations())
def test_what_is_chosen_is_free_of_one_model_and_as_many_as_asked(
    situation: tuple[list[Device], set[str], int, str],
) -> None:
    devices, leased, count, model = situation
    fits = any(
        kind.free >= count
        for kind in count_types(devices, leased).types
        if model in ("", kind.model)
    )
    try:
        chosen = choose_devices(devices, leased, count, model)
    except SpawnerError:
        assert not fits
        return
    assert fits
    assert len({device.id for device in chosen}) == count
    assert not leased & {device.id for device in chosen}
    assert len({device.model for device in chosen}) == 1
    assert model in ("", chosen[0].model)


@given(situations())
def test_a_refusal_is_a_sentence_without_open_placeholders(
    situation: tuple[list[Device], set[str], int, str],
) -> None:
    sentence = "."
    try:
        choose_devices(*situation)
    except SpawnerError as error:
        sentence = str(error)
    assert "{" not in sentence
    assert sentence.endswith(".")


def test_without_a_wish_the_smallest_model_is_taken() -> None:
    devices = [Device("GPU-1", "A100", 80), Device("GPU-2", "T4", 16)]
    assert choose_devices(devices, set(), 1)[0].model == "T4"


def test_a_refusal_names_what_is_free_instead() -> None:
    devices = [Device("GPU-1", "A100", 80), Device("GPU-2", "T4", 16)]
    with pytest.raises(NotAvailable, match="1 × T4"):
        choose_devices(devices, {"GPU-1"}, 1, "A100")


def test_an_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(BadRequest, match=r"“H100”.*A100"):
        choose_devices([Device("GPU-1", "A100", 80)], set(), 1, "H100")


def test_values_in_a_message_are_never_formatted_again() -> None:
    with pytest.raises(BadRequest) as caught:
        choose_devices([Device("GPU-1", "A100", 80)], set(), 1, "{known.__class__}")
    assert "{known.__class__}" in str(caught.value)

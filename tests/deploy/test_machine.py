"""What `make up` concludes from the machine it runs on."""

from __future__ import annotations

import pytest

from deploy import base, engine


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("2.26.1", (2, 26, 1)),
        ("v2.32.4", (2, 32, 4)),
        ("2.26.1-4", (2, 26, 1)),
        ("2.24.6+ds1-0ubuntu1~22.04.1", (2, 24, 6)),
        ("5:2.27.0-1~debian", (2, 27, 0)),
        ("1.29.2-3", (1, 29, 2)),
        ("", ()),
        ("dev", ()),
    ],
)
def test_versions_are_compared_as_numbers(text: str, version: tuple[int, ...]) -> None:
    assert engine.parse_version(text) == version


def test_compose_1_is_not_enough_and_2_26_is() -> None:
    assert engine.parse_version("1.29.2-3") < engine.MINIMUM_COMPOSE
    assert engine.parse_version("2.26.1-4") >= engine.MINIMUM_COMPOSE
    assert engine.parse_version("") < engine.MINIMUM_COMPOSE


def test_debian_comes_from_the_mirror_that_the_machine_uses(
    environment: pytest.MonkeyPatch,
) -> None:
    targets = (
        "cdrom://[Debian]/\n"
        "https://tools.example.org/apt/\n"
        "http://mirror.example.org/debian/\n"
        "http://mirror.example.org/debian-security/\n"
    )
    assert base.debian_sources(targets) == (
        "deb http://mirror.example.org/debian/ trixie main\n"
        "deb http://mirror.example.org/debian/ trixie-updates main\n"
        "deb http://mirror.example.org/debian-security/ trixie-security main\n"
    )


def test_a_mirror_that_was_named_comes_first(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("LABCOMMONS_DEBIAN_MIRROR", "http://near.example.org/debian")
    assert base.debian_sources("http://far.example.org/debian/\n").startswith(
        "deb http://near.example.org/debian trixie main\n"
    )


def test_an_ubuntu_machines_mirror_is_not_taken_for_debians(
    environment: pytest.MonkeyPatch,
) -> None:
    assert base.debian_sources("http://archive.example.org/ubuntu/\n") == ""

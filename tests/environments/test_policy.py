"""The site's rules: what they refuse, what they only mention, and that they say what would do."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from commons.messages import verbatim
from commons.site import Environments
from environments.channel import canonical_url
from environments.errors import PolicyError
from environments.lock import Lock, LockedPackage
from environments.packages import PipPackage
from environments.policy import Finding, check, enforce
from environments.pythons import python_state
from environments.spec import EnvironmentSpec, parse_spec

TODAY = date(2026, 11, 21)


def spec(
    *dependencies: str, channel: str = "conda-forge", pip: Sequence[str] = ()
) -> EnvironmentSpec:
    lines = [f"  - {item}" for item in dependencies]
    if pip:
        lines += ["  - pip:", *(f"      - {item}" for item in pip)]
    text = f"name: x\nchannels: [{channel}]\ndependencies:\n" + "\n".join(lines)
    return parse_spec(text, name="x")


def lock(python: str = "3.13.5", *others: str, path: Path = Path("pixi.lock")) -> Lock:
    packages = tuple(
        LockedPackage(name, version, "0", "", "", "")
        for name, version in [("python", python), *((name, "1") for name in others)]
    )
    return Lock(
        path, "", "", (), packages, (PipPackage("leftpad", "1", "", ""),), locked=datetime.now(UTC)
    )


def codes(settings: dict[str, Any], of: EnvironmentSpec, locked: Lock | None = None) -> list[str]:
    rules = Environments.model_validate(settings)
    return [f"{item.level} {item.code}" for item in check(of, locked, rules, TODAY)]


@pytest.mark.parametrize(
    ("version", "day", "state"),
    [
        ("3.9.20", date(2025, 10, 31), "ending"),
        ("3.9.20", date(2025, 11, 1), "ended"),
        ("3.10.1", date(2026, 4, 1), "ok"),
        ("3.10.1", date(2026, 5, 2), "ending"),
        ("3.10.1", date(2026, 11, 21), "ended"),
        ("3.13.5", date(2026, 11, 21), "ok"),
        ("2.7.18", date(2026, 11, 21), "ended"),
        ("3.5.1", date(2026, 11, 21), "ended"),
        ("3.99.0", date(2026, 11, 21), "ok"),
    ],
)
def test_a_python_is_flagged_half_a_year_before_its_end(
    version: str, day: date, state: str
) -> None:
    assert python_state(version, day) == state


def test_a_python_past_its_end_is_refused_and_says_which_one_to_take() -> None:
    found = check(spec("python"), lock("3.10.4"), Environments(), TODAY)
    with pytest.raises(PolicyError, match=r"since 2026-10-31; take Python 3\.14"):
        enforce(found)
    assert codes({"policy": {"ended_python": "warn"}}, spec("python"), lock("3.10.4")) == [
        "warn python-ended"
    ]


def test_only_the_sites_channels_are_taken() -> None:
    rules = {"policy": {"channels": ["conda-forge", "https://conda.lab.example/own"]}}
    assert codes(rules, spec("python", "https://conda.lab.example/own/::x")) == []
    assert codes(rules, spec("python", channel=canonical_url("conda-forge"))) == []
    assert codes(rules, spec("python", "bioconda::samtools")) == ["refuse channel"]


def test_a_denied_package_is_refused_wherever_it_comes_from() -> None:
    rules = {"policy": {"denied_packages": {"mkl*": "its licence", "leftpad": "a joke"}}}
    assert codes(rules, spec("mkl-service")) == ["refuse package"]
    assert codes(rules, spec("numpy"), lock("3.13.5", "mkl")) == ["refuse package"] * 2
    assert codes(rules, spec("python", pip=["LeftPad"]))[0] == "refuse package"
    found = check(spec("numpy"), lock("3.13.5", "mkl"), Environments.model_validate(rules), TODAY)
    words = " ".join(map(str, found))
    assert "its licence" in words
    assert "needed by what environment.yml names" in words


def test_a_list_of_allowed_packages_is_for_what_is_asked_for() -> None:
    rules = {"policy": {"allowed_packages": ["python", "numpy", "r-*"]}}
    assert codes(rules, spec("python", "r-base"), lock("3.13.5", "openssl")) == []
    assert codes(rules, spec("python", "torch")) == ["refuse package"]


@pytest.mark.parametrize("rule", ["allow", "warn", "refuse"])
def test_pip_beside_conda_is_as_the_site_says(rule: str) -> None:
    expected = [] if rule == "allow" else [f"{rule} pip"]
    assert codes({"policy": {"pip": rule}}, spec("python", pip=["requests"])) == expected
    assert codes({"policy": {"pip": rule}}, spec("python")) == []


def test_what_no_committed_lock_answers_is_mentioned(tmp_path: Path) -> None:
    from dataclasses import replace

    of = replace(spec("python"), folder=tmp_path)
    assert codes({}, of, lock(path=Path("/srv/locks/x/pixi.lock"))) == ["warn unlocked"]
    assert codes({}, of, lock(path=tmp_path / "pixi.lock")) == []
    assert codes({"policy": {"unlocked": "refuse"}}, of, lock()) == ["refuse unlocked"]
    # A personal one has no folder to commit to.
    assert codes({"policy": {"unlocked": "refuse"}}, spec("python"), lock()) == []


def test_everything_refused_is_said_at_once() -> None:
    found = [
        Finding("refuse", "channel", verbatim("a"), verbatim("b")),
        Finding("warn", "pip", verbatim("c"), verbatim("d")),
        Finding("refuse", "package", verbatim("e"), verbatim("f")),
    ]
    with pytest.raises(PolicyError, match=r"refused \(channel\): a; b\nrefused \(package\): e; f$"):
        enforce(found)
    enforce(found[1:2])

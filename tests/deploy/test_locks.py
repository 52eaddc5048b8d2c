"""Locks answer pyproject.toml: who changes a range or an image's list makes them anew."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy import locks
from deploy.locks import HUB, LOCKS, NODE, Lock
from deploy.settings import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
# The images' Python; Debian 12's and a newer one, for what runs on every Python.
PYTHONS = {False: ["3.13.5"], True: ["3.11.2", "3.13.5"]}
CASES = [(lock, python) for lock in LOCKS for python in PYTHONS[lock.universal]]
each = pytest.mark.parametrize(
    ("lock", "python"), CASES, ids=[f"{lock.path}-{python}" for lock, python in CASES]
)


def environment(python: str, extra: str = "") -> dict[str, str]:
    return {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "extra": extra,
    }


def lines(path: str, python: str) -> dict[str, str]:
    """The versions that a lock has for a Python, by name."""
    found: dict[str, str] = {}
    for line in re.findall(r"(?m)^[A-Za-z0-9].*==.*$", (ROOT / path).read_text("utf-8")):
        pin = Requirement(line.rstrip(" \\"))
        if pin.marker is None or pin.marker.evaluate(environment(python)):
            name = canonicalize_name(pin.name)
            assert name not in found, f"{path} has {name} twice for Python {python}"
            found[name] = str(pin.specifier).removeprefix("==")
    return found


def asked(lock: Lock, project: Mapping[str, Any]) -> Iterator[Requirement]:
    """What a lock has to answer, extras of our own replaced by what is in them."""
    texts = list(project["build-system"]["requires"]) if lock.backend else []
    if lock.project:
        texts += project["project"]["dependencies"]
    if lock.file:
        found = (ROOT / lock.file).read_text("utf-8").splitlines()
        texts += [line for line in found if line and not line.startswith("#")]
    extras = list(lock.extras)
    for extra in extras:
        for text in project["project"]["optional-dependencies"][extra]:
            if Requirement(text).name == "labcommons":
                extras += Requirement(text).extras
            else:
                texts.append(text)
    yield from map(Requirement, texts)


def problems(lock: Lock, python: str, project: Mapping[str, Any]) -> list[str]:
    """What a lock does not answer: what was asked for, and what that needs, as far as it is here.

    What a package needs is known where the tests have the same version of it.
    """
    there = (lines(lock.agrees, python) if lock.beside else {}) | lines(lock.path, python)
    queue = [(need, "pyproject.toml", "") for need in asked(lock, project)]
    said, seen = [], set()
    while queue:
        need, whose, extra = queue.pop()
        if need.marker and not need.marker.evaluate(environment(python, extra)):
            continue
        name = canonicalize_name(need.name)
        if name in lock.without:
            continue
        if name not in there:
            said.append(f"{name}, which {whose} needs, is missing")
        elif not need.specifier.contains(there[name], prereleases=True):
            said.append(f"{name} {there[name]} is not what {whose} needs: {need}")
        for wanted in ("", *need.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                queue += [(more, name, wanted) for more in needs_of(name, there.get(name))]
    return said


def needs_of(name: str, version: str | None) -> list[Requirement]:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return []
    return [Requirement(text) for text in found.requires or ()] if found.version == version else []


@each
def test_a_lock_answers_what_is_asked_for(lock: Lock, python: str) -> None:
    assert problems(lock, python, PROJECT) == [], "make locks"


@each
def test_a_lock_that_was_forgotten_is_noticed(lock: Lock, python: str) -> None:
    changed = json.loads(json.dumps(PROJECT))
    places = {"build-system": "requires", "project": "dependencies"}
    for section, key in places.items():
        changed[section][key].append("not-in-any-lock>=1")
    assert problems(lock, python, changed) == [
        "not-in-any-lock, which pyproject.toml needs, is missing"
    ] * (lock.project + lock.backend)
    newer = next(asked(lock, PROJECT)).name
    changed = json.loads(json.dumps(PROJECT))
    for section, key in places.items():
        changed[section][key].append(f"{newer}>=9999")
    noticed = any(
        "is not what pyproject.toml needs" in line for line in problems(lock, python, changed)
    )
    assert noticed is (lock.project or lock.backend)  # else it answers its own list alone


@each
def test_each_package_of_a_lock_is_known_by_its_hash_and_no_index_is_named(
    lock: Lock, python: str
) -> None:
    text = (ROOT / lock.path).read_text("utf-8")
    assert "://" not in text
    blocks = re.split(r"(?m)^(?=[A-Za-z0-9])", text)[1:]
    assert len(blocks) >= len(lines(lock.path, python)) > 0
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.agrees], ids=lambda one: one.path)
def test_what_two_images_share_is_of_one_version(lock: Lock) -> None:
    hub, other = lines(HUB, "3.13.5"), lines(lock.path, "3.13.5")
    assert {name: other[name] for name in hub.keys() & other.keys()} == {
        name: hub[name] for name in hub.keys() & other.keys()
    }
    assert lock.beside != bool(hub.keys() & other.keys())


@pytest.mark.parametrize("folder", NODE)
def test_nodes_locks_answer_what_is_asked_for(folder: str) -> None:
    wanted = json.loads((ROOT / folder / "package.json").read_text("utf-8"))["dependencies"]
    found = json.loads((ROOT / folder / "package-lock.json").read_text("utf-8"))["packages"]
    assert found.pop("")["dependencies"] == wanted
    assert {f"node_modules/{name}" for name in wanted} <= found.keys()
    for package in found.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package


def test_every_lock_that_an_image_takes_is_made_by_the_command() -> None:
    taken = set()
    for dockerfile in sorted(Path(ROOT, "config/images").glob("*/Dockerfile")):
        taken |= set(re.findall(r"config/images/\S+\.lock", dockerfile.read_text("utf-8")))
    assert taken == {lock.path for lock in LOCKS if lock.path.startswith("config/")}


def test_no_image_takes_packages_that_no_lock_names() -> None:
    for dockerfile in sorted(Path(ROOT, "config/images").glob("*/Dockerfile")):
        text = re.sub(r"\\\n", " ", dockerfile.read_text("utf-8"))
        for command in re.findall(r"pip[^&\n]* (?:install|wheel) [^&\n]*", text):
            assert "--require-hashes" in command or "--no-index" in command, command


def test_what_changed_is_said(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.lock"
    assert locks.pinned(lock) == set()
    lock.write_text(
        "a==1.0 \\\n    --hash=sha256:00\nb==2 ; python_version < '3.12' \\\n    # via a\n"
    )
    assert locks.pinned(lock) == {"a==1.0", "b==2"}

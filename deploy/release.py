"""What runs, and what ran before it: images, commit, versions of the tables.

``data/release/state.json`` tells. Before the first change of a `make up` with another version
the images that run are tagged ``:previous``; a `make up` that fails or is killed leaves it at that,
and the next one goes on.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from deploy import base, images, settings
from deploy.engine import Engine
from deploy.files import write_atomically
from deploy.settings import ROOT, Settings
from deploy.shell import Failure, output

PREVIOUS = "previous"  # the tag
UNKNOWN = "an unknown version"


@dataclass(frozen=True)
class Release:
    """One version on this machine.

    Attributes:
        version: of the package; "" where it is not known.
        commit: of the checkout, with a plus where it was changed; "" where it is none.
        at: when it was up, ISO 8601; "" where that is not known.
        images: tag -> id.
        schemas: ``store`` and ``hub`` -> the version of its tables.
    """

    version: str
    commit: str
    at: str = ""
    images: dict[str, str] = field(default_factory=dict)
    schemas: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        commit = f"({self.commit})" if self.commit else ""
        return f"{self.version} {commit}".strip() or UNKNOWN


@dataclass(frozen=True)
class State:
    """``changing``: a `make up` has begun to put something else in the place of ``previous``."""

    running: Release | None = None
    previous: Release | None = None
    changing: bool = False


def load(site: Settings) -> State:
    """What is known; nothing at first. Raises Failure for a file that says nothing."""
    path = _path(site)
    text = settings.read(path)
    if not text:
        return State()
    try:
        found = json.loads(text)
        both = [found[name] and Release(**found[name]) for name in ("running", "previous")]
        return State(*both, changing=bool(found["changing"]))
    except (ValueError, TypeError, KeyError) as error:
        raise Failure(f"{path} cannot be read: {error}", "move it away: it is made anew") from error


def save(site: Settings, state: State) -> None:
    path = _path(site)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(state), indent=1) + "\n", 0o644)


def keep(docker: Engine, site: Settings) -> None:
    """Before something changes: what runs is what `make rollback` puts back. Harmless to repeat."""
    state = load(site)
    running = state.running or _of_before(docker, site)
    if state.changing or not running:
        return
    for tag, image in running.images.items():
        docker.docker("tag", image, previous_tag(tag))
    save(site, State(running, running, changing=True))


def keep_where_another(docker: Engine, site: Settings) -> None:
    """``keep``, where the checkout or the images are not those of the last `make up`."""
    running = load(site).running
    if running and (running.commit, running.images) != (
        settings.revision(),
        _images(docker, site.profiles),
    ):
        keep(docker, site)


def know_schemas(site: Settings, schemas: dict[str, str]) -> None:
    """The tables' versions, before they change, where what ran before did not tell its own."""
    state = load(site)
    if state.changing and state.previous and not state.previous.schemas:
        save(site, replace(state, previous=replace(state.previous, schemas=schemas)))


def complete(docker: Engine, site: Settings, schemas: dict[str, str]) -> Release | None:
    """All is up: this is what runs; the version in whose place it came just now, or None."""
    state = load(site)
    now = _now(docker, site, schemas)
    previous = state.previous
    if previous and (previous.images, previous.commit) == (now.images, now.commit):
        previous = None  # what was begun has been taken back by hand
    save(site, State(now, previous))
    return previous if state.changing else None


def previous_tag(tag: str) -> str:
    return f"{tag.partition(':')[0]}:{PREVIOUS}"


def version() -> str:
    """Of the package in this checkout."""
    return str(tomllib.loads(settings.read(ROOT / "pyproject.toml"))["project"]["version"])


def _path(site: Settings) -> Path:
    return site.data / "release" / "state.json"


def _now(docker: Engine, site: Settings, schemas: dict[str, str]) -> Release:
    at = datetime.now(UTC).isoformat(timespec="seconds")
    found = _images(docker, site.profiles)
    return Release(version(), settings.revision(), at, found, schemas)


def _of_before(docker: Engine, site: Settings) -> Release | None:
    """A site of a version that kept no such record: its images, and its commit for --version."""
    found = _images(docker, site.profiles)
    if not (site.data / "secrets").exists() or images.IMAGES[0].tag not in found:
        return None
    return Release("", settings.read(ROOT / "config" / "revision").strip(), images=found)


def _images(docker: Engine, profiles: tuple[str, ...]) -> dict[str, str]:
    tags = [base.DEBIAN, *(image.tag for image in (images.BASE, *images.needed(profiles)))]
    return {tag: found for tag in tags if (found := images.identity(docker, tag))}


def git(*words: str) -> str | None:
    """What git says in this checkout; None where it fails, or this is none of its own."""
    here = ["git", "-C", str(ROOT)]
    if output([*here, "rev-parse", "--show-prefix"]) != "":
        return None
    return output([*here, *words], timeout=60)

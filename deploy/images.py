"""Our images: built when what they are made of has changed, and only then."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from deploy.engine import Engine
from deploy.settings import ROOT
from deploy.shell import Failure
from deploy.steps import Step

LABEL = "labcommons.inputs"
# When Debian's updates went into an image; images that start from it have it, too.
UPDATED = "labcommons.updated"
OLD = 14  # days after which updates are advised
BUILD_TIMEOUT = 1800
KEEP_LAYERS = "168h"

# Settings of this machine that a build needs as well. Docker knows the proxies by itself and
# keeps them out of the image, so they do not count as input.
PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
PASSED_ON = (
    "LABCOMMONS_DEBIAN_MIRROR",
    "LABCOMMONS_DEBIAN_SECURITY",
    "NPM_CONFIG_REGISTRY",
    "PIP_EXTRA_INDEX_URL",
    "PIP_INDEX_URL",
)


@dataclass(frozen=True)
class Image:
    """One image ``labcommons/<name>``, made from ``config/images/<name>/Dockerfile``.

    Attributes:
        base: the image it starts from, given to the Dockerfile as ``BASE``.
        profile: the compose profile that needs it, "" when all do.
        context: what the Dockerfile copies from, under the root.
        parts: images that it copies from, too; each is built before.
    """

    name: str
    base: str
    profile: str = ""
    context: str = "."
    parts: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return f"labcommons/{self.name}"


BASE = Image("base", "debian:13", context=".cache/base")
IMAGES = (
    Image("hub", "base"),
    Image("agent", "base"),
    Image("builder", "hub"),
    Image("backup", "base", parts=("hub",)),
    Image("server", "base"),
    Image("ssh", "base"),
    Image("perimeter", "base"),
    Image("chp", "base"),
    Image("proxy", "base"),
    Image("registry", "base", profile="mirror"),
    Image("directory", "base", profile="demo", context="config/demo/directory"),
    Image("postgres", "base", profile="postgres"),
)


def needed(profiles: tuple[str, ...]) -> list[Image]:
    """The images of a site with these compose profiles, each after the one it starts from."""
    return [image for image in IMAGES if not image.profile or image.profile in profiles]


def ensure(
    image: Image, engine: Engine, step: Step, before: Callable[[], None] = lambda: None
) -> None:
    """Build an image, unless the one that is there was made of the same.

    ``before`` is called before another one takes its place.
    """
    if os.environ.get("LABCOMMONS_IMAGES") == "as they are" and identity(engine, image.tag):
        step.result = "as it is"
        return
    dockerfile = ROOT / "config" / "images" / image.name / "Dockerfile"
    context = ROOT / image.context
    if not dockerfile.is_file():
        raise Failure(f"{dockerfile} is missing", "restore it with: git checkout config/images")
    base_tag = f"labcommons/{image.base}"
    base_id = identity(engine, base_tag)
    if not base_id:
        raise Failure(f"the image {base_tag} is missing", "run make up again")
    arguments = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if image is BASE:
        # When Debian's updates were got: now for REFRESH=yes and the first time, else as it was.
        kept = os.environ.get("REFRESH") != "yes" and updated(engine, image.tag)
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        arguments["LABCOMMONS_UPDATED"] = _label(engine, image.tag, UPDATED) if kept else now
    parts = {
        part: engine.docker("image", "inspect", "--format", "{{.Id}}", f"labcommons/{part}") or ""
        for part in image.parts
    }
    inputs = digest(dockerfile, context, {"BASE": base_id, **arguments, **parts})
    present = _label(engine, image.tag, LABEL)
    if present == inputs:
        step.result = "up to date"
        return
    former = identity(engine, image.tag)
    before()
    arguments |= {name: os.environ[name] for name in PROXIES if name in os.environ}
    arguments["BASE"] = base_tag
    # By name only: docker takes the value from the environment, so that an address with a
    # password in it is neither in our log nor in the list of processes.
    words = [word for name in arguments for word in ("--build-arg", name)]
    step.run(
        [
            *("docker", "build", "--force-rm", *words, "--label", f"{LABEL}={inputs}"),
            *("--tag", image.tag, "--file", dockerfile, context),
        ],
        timeout=BUILD_TIMEOUT,
        env={**engine.env, **arguments},
    )
    _tidy(engine, former, image.tag)


def updated(engine: Engine, tag: str) -> date | None:
    """When Debian's updates went into an image; None for none of ours, or one of before."""
    try:
        return date.fromisoformat(_label(engine, tag, UPDATED)[:10])
    except ValueError:
        return None


def updates(engine: Engine, today: date) -> list[str]:
    """How old Debian's updates in our images are, and what to do about old ones."""
    days = [day for image in (BASE, *IMAGES) if (day := updated(engine, image.tag))]
    if not days:
        return []
    age = (today - min(days)).days
    said = f"Debian's updates in the images are of {min(days)} ({age} days ago)"
    return [said + ("; get newer ones: REFRESH=yes make up" if age > OLD else "")]


def _tidy(engine: Engine, former: str | None, tag: str) -> None:
    """Remove the image that the tag named before, and layers that no build of a week has used.

    Younger ones stay: the next build starts from them. So does one with another tag, as of what
    `make rollback` puts back.
    """
    tags = ("image", "inspect", "--format", "{{len .RepoTags}}")
    if former and former != identity(engine, tag) and engine.docker(*tags, former) == "0":
        engine.docker("rmi", former, timeout=120)
    filters = ["--filter", f"label={LABEL}", "--filter", f"until={KEEP_LAYERS}"]
    engine.docker("image", "prune", "--force", *filters, timeout=120)


def digest(dockerfile: Path, context: Path, arguments: Mapping[str, str]) -> str:
    """A hash of all that a build sees: Dockerfile, copied files with their modes, arguments."""
    total = hashlib.sha256(dockerfile.read_bytes())
    for name, value in sorted(arguments.items()):
        total.update(f"\0{name}={value}".encode())
    for source in copied(dockerfile.read_text("utf-8")):
        for path in sorted(_files(context, source)):
            runnable = os.access(path, os.X_OK)
            total.update(f"\0{path.relative_to(context)}\0{runnable}\0".encode())
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def copied(dockerfile: str) -> list[str]:
    """What the Dockerfile takes from its context: the sources of every COPY and ADD."""
    sources = []
    for line in re.sub(r"\\\n", " ", dockerfile).splitlines():
        words = line.split()
        if words and words[0].upper() in ("COPY", "ADD"):
            options = [word for word in words[1:] if word.startswith("--")]
            if not any(option.startswith("--from=") for option in options):
                sources += [word for word in words[1:-1] if word not in options]
    return sources


def _files(context: Path, source: str) -> Iterator[Path]:
    """The files behind one source, without those that .dockerignore leaves out."""
    for found in context.glob(source.strip("/")):
        for path in [found] if found.is_file() else found.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def identity(engine: Engine, tag: str) -> str:
    """The id of an image; "" where there is none of this tag, or id."""
    return engine.docker("image", "inspect", "--format", "{{.Id}}", tag) or ""


def _label(engine: Engine, tag: str, label: str) -> str:
    """A label of an image; "" where there is none."""
    wanted = f'{{{{index .Config.Labels "{label}"}}}}'
    return engine.docker("image", "inspect", "--format", wanted, tag) or ""

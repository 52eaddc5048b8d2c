"""`make locks`: all locks of the images and the tests' tools, from the ranges in pyproject.toml.

uv chooses Python's packages and npm those of Node; both keep the versions of the lock that is
there, unless UPGRADE=yes. Nobody edits a lock by hand. One hash of each file of a release is kept,
for every kind of machine, and no index's address.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.checks import VENV, prepare_python
from deploy.engine import CACHE
from deploy.settings import ROOT
from deploy.shell import CommandFailed
from deploy.steps import Progress, Step

# Debian 13's, which the images have, and the oldest that the tests run on (Debian 12's).
IMAGES_PYTHON, OLDEST_PYTHON = "3.13", "3.11"
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==")
TIMEOUT = 600


@dataclass(frozen=True)
class Lock:
    """One requirements.lock, and what it answers.

    Attributes:
        extras: those of pyproject.toml; its plain dependencies belong to it, too.
        file: a requirements.in that belongs to it, under the root.
        project: whether it answers pyproject.toml's dependencies at all.
        backend: whether what builds our own wheel belongs to it.
        agrees: the lock with which it has to agree on versions.
        beside: whether what ``agrees`` has is left out, being there already.
        without: what is left out on purpose.
        universal: whether it is for every Python from ``OLDEST_PYTHON`` on.
    """

    path: str
    extras: tuple[str, ...] = ()
    file: str = ""
    project: bool = True
    backend: bool = False
    agrees: str = ""
    beside: bool = False
    without: tuple[str, ...] = ()
    universal: bool = False


HUB = "config/images/hub/requirements.lock"
# An optional check of jsonschema, which costs each process with JupyterHub three quarters of a
# second at its start, and a person's server half of its own.
SLOW = ("rfc3987-syntax", "lark")
# The other optional ones: one is named by a schema, for addresses of schemas, all JupyterHub's own.
FORMATS = ("arrow", "fqdn", "isoduration", "rfc3986-validator", "uri-template", "webcolors")
# What nbgrader has for its pages in JupyterLab: tests use none of it.
PAGES = (
    *("async-lru", "h11", "httpcore", "httpx", "ipywidgets", "json5", "jupyter-builder"),
    *("jupyter-lsp", "jupyterlab", "jupyterlab-server", "jupyterlab-widgets", "notebook"),
    *("notebook-shim", "widgetsnbextension"),
)
LOCKS = (
    Lock(HUB, ("hub",), without=(*SLOW, *FORMATS)),
    Lock(
        "config/images/builder/requirements.lock",
        ("build",),
        agrees=HUB,
        beside=True,
        without=(*SLOW, *FORMATS),
    ),
    Lock(
        "config/images/server/requirements.lock",
        file="config/images/server/requirements.in",
        agrees=HUB,
    ),
    Lock(
        "config/images/agent/requirements.lock",
        file="config/images/agent/requirements.in",
        project=False,
        agrees=HUB,
    ),
    Lock(
        "config/images/ssh/requirements.lock",
        file="config/images/ssh/requirements.in",
        project=False,
        agrees=HUB,
    ),
    Lock("config/images/wheel.lock", project=False, backend=True),
    Lock(
        "tests/requirements.lock",
        ("test", "bench"),
        backend=True,
        universal=True,
        without=(*SLOW, *PAGES),
    ),
)
NODE = ("config/images/chp", "tests/rig/firefox")


def locks() -> None:
    """Make all locks. Raises Failure where an index does not answer or nothing fits."""
    progress = Progress(1 + len(LOCKS) + len(NODE), CACHE / "log")
    with progress.step("Python packages") as step:
        prepare_python(step)
    for lock in LOCKS:
        with progress.step(lock.path) as step:
            before = pinned(ROOT / lock.path)
            _python(lock, step)
            step.result = _changes(before, pinned(ROOT / lock.path))
    for folder in NODE:
        with progress.step(f"{folder}/package-lock.json") as step:
            _node(ROOT / folder, step)


def pinned(path: Path) -> set[str]:
    """The names in a lock, as it writes them, with their versions: ``name==1.0``."""
    return set(re.findall(r"(?m)^[A-Za-z0-9][\w.-]*==[^\s;]+", _text(path)))


def _changes(before: set[str], after: set[str]) -> str:
    changed = sorted(after - before)
    return f"{', '.join(changed[:8])}{' …' if len(changed) > 8 else ''}" if changed else "unchanged"


def _python(lock: Lock, step: Step) -> None:
    words: list[str | Path] = [
        *(VENV / "bin" / "uv", "pip", "compile", "--quiet", "--no-python-downloads"),
        *("--generate-hashes", "--only-binary", ":all:", "--no-emit-index-url"),
        *("--custom-compile-command", "make locks", "--output-file", lock.path),
    ]
    words += ["--universal"] if lock.universal else ["--python-platform", "linux"]
    words += ["--python-version", OLDEST_PYTHON if lock.universal else IMAGES_PYTHON]
    words += [word for extra in lock.extras for word in ("--extra", extra)]
    words += ["--upgrade"] if os.environ.get("UPGRADE") == "yes" else []
    words += ["--constraint", lock.agrees] if lock.agrees else []
    left_out = [*lock.without, *(_names(ROOT / lock.agrees) if lock.beside else ())]
    words += [word for name in left_out for word in ("--no-emit-package", name)]
    words += ["pyproject.toml"] if lock.project else []
    words += [lock.file] if lock.file else []
    backend = CACHE / "wheel.in"
    if lock.backend:
        backend.write_text("\n".join(backend_requirements()) + "\n")
        words.append(backend.relative_to(ROOT))
    env = {"UV_CACHE_DIR": str(CACHE / "uv"), "UV_NO_PROGRESS": "1", **_indexes()}
    try:
        step.run(words, timeout=TIMEOUT, cwd=ROOT, env=env)
    except CommandFailed as error:
        error.remedy = "see what cannot be had together; is a package index reachable?"
        raise


def backend_requirements() -> list[str]:
    """What pyproject.toml wants for building our own wheel."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    return list(document["build-system"]["requires"])


def _indexes() -> dict[str, str]:
    """pip's settings of where packages come from, by the names that uv has for them."""
    names = {
        "PIP_INDEX_URL": "UV_DEFAULT_INDEX",
        "PIP_EXTRA_INDEX_URL": "UV_INDEX",
        "PIP_CERT": "SSL_CERT_FILE",
    }
    return {uv: os.environ[pip] for pip, uv in names.items() if os.environ.get(pip)}


def _names(path: Path) -> Iterator[str]:
    for line in _text(path).splitlines():
        if match := _LINE.match(line):
            yield match[1]


def _node(folder: Path, step: Step) -> None:
    """Node's lock; without ``resolved``, which would be an address of one registry."""
    verb = "update" if os.environ.get("UPGRADE") == "yes" else "install"
    step.run(
        [
            *("npm", verb, "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"),
            "--omit-lockfile-registry-resolved",
        ],
        timeout=TIMEOUT,
        cwd=folder,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError:
        return ""

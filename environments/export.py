"""A version in the formats of others, so that it can be made again without LabCommons.

Every format but ``environment.yml`` names each package by URL and SHA-256. Formats: conda's
``@EXPLICIT`` list, conda-lock version 1, pixi.lock (which is the lock itself), a requirements
file with hashes for what came from pip, and a Dockerfile that needs nothing beside it.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from ruamel.yaml import YAML

from environments import own_channels as names
from environments.channel import OFFLINE_URL, canonical_url
from environments.errors import ExportError
from environments.files import EXPORTS, FILE_NAMES, FOLDER, LOCK_FILE, SPEC_FILE, WORDS_FILE
from environments.inventory import Installed, inventory
from environments.lock import NEVER, Lock, LockedPackage, read_lock
from environments.messages import making as texts
from environments.packages import PipPackage
from environments.pip_section import requirements
from environments.spec import EnvironmentSpec, parse_spec

FORMATS = tuple(FILE_NAMES)
DOCKER_BASE = "mambaorg/micromamba:2"
_MAX_BYTES = 1024 * 1024
_LINES = 200  # of a file that one instruction writes


def export(spec: EnvironmentSpec, lock: Lock, format: str) -> str:
    """A locked environment as text in one of FORMATS. Raises ExportError."""
    writers = {
        "environment.yml": _environment,
        "explicit": _explicit,
        "conda-lock": _conda_lock,
        "pixi.lock": _pixi,
        "requirements": _requirements,
        "dockerfile": _dockerfile,
    }
    if format not in writers:
        raise ExportError(texts.NO_FORMAT(format=format, known=FORMATS))
    return writers[format](spec, lock)


def export_folder(folder: Path, format: str) -> str:
    """As ``export``, from a folder in which a version's environment.yml and lock are kept."""
    try:
        with (folder / SPEC_FILE).open(encoding="utf-8") as file:
            text = file.read(_MAX_BYTES)
        words_file = folder / WORDS_FILE
        words = words_file.read_text("utf-8")[:_MAX_BYTES] if words_file.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(texts.NOT_SAID_FROM(folder=folder, reason=error)) from error
    spec = parse_spec(text, name=None, words=words, file=str(folder / SPEC_FILE))
    return export(spec, read_lock(folder / LOCK_FILE, spec.platforms[0]), format)


def write_exports(folder: Path) -> None:
    """Keep a version in every format beside what it was made from, for who cannot read locks."""
    target = folder / EXPORTS
    partial = folder / f".{EXPORTS}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name, file in FILE_NAMES.items():
        (partial / file).write_text(export_folder(folder, name), "utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def export_prefix(prefix: Path, format: str) -> str:
    """As ``export``, from an environment on disk, whoever made it.

    One that conda and pip made knows no hashes of what pip installed: a comment says so.
    """
    if (prefix / FOLDER / LOCK_FILE).is_file():
        return export_folder(prefix / FOLDER, format)
    if not (prefix / "conda-meta").is_dir():
        raise ExportError(texts.NO_CONDA(prefix=prefix))
    if format == "pixi.lock":
        raise ExportError(texts.NO_LOCK(prefix=prefix))
    spec, lock = _guess(prefix)
    return export(spec, lock, format)


def _guess(prefix: Path) -> tuple[EnvironmentSpec, Lock]:
    """Spec and lock of an environment that others made."""
    packages = inventory(prefix)
    conda = [_locked(item) for item in packages if item.kind == "conda"]
    unknown = [item.name for item in conda if not item.url]
    if unknown:
        raise ExportError(texts.NOT_SAID_WHERE(prefix=prefix, names=unknown))
    channels = tuple(dict.fromkeys(item.channel for item in conda))
    pip = tuple(
        PipPackage(item.name, item.version, item.url, "", item.depends)
        for item in packages
        if item.kind == "pip"
    )
    name = re.sub(r"[^a-z0-9]+", "-", prefix.name.lower()).strip("-") or "environment"
    spec = EnvironmentSpec(name, None, channels, (), variables=_state(prefix))
    return spec, Lock(Path(), "", "", channels, tuple(conda), pip, locked=NEVER)


def _state(prefix: Path) -> dict[str, str]:
    """The variables that conda keeps for an environment."""
    try:
        with (prefix / "conda-meta" / "state").open("rb") as file:
            variables = json.loads(file.read(_MAX_BYTES)).get("env_vars", {})
        return {str(key): str(value) for key, value in variables.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def _locked(item: Installed) -> LockedPackage:
    return LockedPackage(
        item.name,
        item.version,
        item.build,
        item.url,
        item.sha256,
        f"{item.channel}/",
        item.subdir,
        item.md5,
        0,
        item.license,
        item.depends,
    )


# One function for each format ------------------------------------------------------------------


def _environment(spec: EnvironmentSpec, lock: Lock) -> str:
    """environment.yml with every version pinned, as ``conda env export`` writes it."""
    offline = OFFLINE_URL in lock.channels
    dependencies: list[Any] = [
        f"{item.name}={item.version}" + ("" if offline else f"={item.build}")
        for item in lock.packages
    ]
    if lock.pip:
        if not any(item.name == "pip" for item in lock.packages):
            dependencies.append("pip")  # else conda adds it, and says that it should be there
        dependencies.append({"pip": [f"{item.name}=={item.version}" for item in lock.pip]})
    channels = spec.all_channels if offline else [_channel_name(c) for c in lock.channels]
    document: dict[str, Any] = {
        "name": spec.name,
        "channels": list(channels),
        "dependencies": dependencies,
    }
    if spec.variables:
        document["variables"] = dict(spec.variables)
    return _notes(spec, lock) + _yaml(document)


def _explicit(spec: EnvironmentSpec, lock: Lock) -> str:
    lines = [
        f"{_notes(spec, lock)}# conda create --name {spec.name} --file {FILE_NAMES['explicit']}",
        f"# platform: {lock.platform}",
    ]
    if lock.pip:
        lines.append(f"# and then, from the export 'requirements': {_PIP_COMMAND}")
    return "\n".join([*lines, "@EXPLICIT", *map(_explicit_line, lock.packages)]) + "\n"


_PIP_COMMAND = "python -m pip install --no-deps --require-hashes -r requirements.txt"


def _explicit_line(item: LockedPackage) -> str:
    if item.sha256:
        return f"{item.url}#sha256:{item.sha256}"
    return f"{item.url}#{item.md5}" if item.md5 else item.url


def _requirements(spec: EnvironmentSpec, lock: Lock) -> str:
    head = f"{_notes(spec, lock)}# {_PIP_COMMAND}\n"
    if all(item.sha256 for item in lock.pip):
        return head + requirements(lock.pip)
    lines = "".join(f"{item.name}=={item.version}\n" for item in lock.pip)
    return f"{_notes(spec, lock)}# Installed by pip, which keeps no hashes.\n{lines}"


def _pixi(spec: EnvironmentSpec, lock: Lock) -> str:
    try:
        return lock.path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(texts.EXPORT_UNREADABLE(file=lock.path, reason=error)) from error


def _conda_lock(spec: EnvironmentSpec, lock: Lock) -> str:
    """conda-lock's own format, version 1."""
    packages: list[dict[str, Any]] = [
        {
            "name": item.name,
            "version": item.version,
            "manager": "conda",
            "platform": lock.platform,
            "dependencies": _conda_needs(item.depends),
            "url": item.url,
            "hash": {k: v for k, v in (("md5", item.md5), ("sha256", item.sha256)) if v},
            "category": "main",
            "optional": False,
        }
        for item in lock.packages
    ]
    packages += [
        {
            "name": item.name,
            "version": item.version,
            "manager": "pip",
            "platform": lock.platform,
            "dependencies": _pip_needs(item, lock.pip),
            "url": item.url,
            "hash": {"sha256": item.sha256},
            "category": "main",
            "optional": False,
        }
        for item in lock.pip
        if item.sha256 and item.url
    ]
    document = {
        "version": 1,
        "metadata": {
            "content_hash": {lock.platform: spec.digest},
            "channels": [
                {"url": _channel_name(channel), "used_env_vars": []} for channel in lock.channels
            ],
            "platforms": [lock.platform],
            "sources": [SPEC_FILE],
        },
        "package": packages,
    }
    left = [item.name for item in lock.pip if not (item.sha256 and item.url)]
    note = f"# left out, as pip keeps no hashes: {', '.join(left)}\n" if left else ""
    return _notes(spec, lock) + note + _yaml(document)


def _conda_needs(depends: Sequence[str]) -> dict[str, str]:
    return {name: rest for name, _, rest in (need.partition(" ") for need in depends)}


def _pip_needs(item: PipPackage, others: Sequence[PipPackage]) -> dict[str, str]:
    """What it needs of the other wheels; what conda brought is conda's."""
    names = {other.name for other in others}
    found: dict[str, str] = {}
    for text in item.requires_dist:
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue
        if canonicalize_name(need.name) in names:
            found[canonicalize_name(need.name)] = str(need.specifier)
    return found


def _dockerfile(spec: EnvironmentSpec, lock: Lock) -> str:
    """An image with nothing but this environment; any Docker builds it, also without BuildKit."""
    prefix = f"/opt/conda/envs/{spec.name}"
    used = [c for c in lock.channels if any(p.url.startswith(c) for p in lock.packages)]
    channels = {channel: f"CHANNEL_{number}" for number, channel in enumerate(used, 1)}
    pip = (
        [
            "# pip's packages: --build-arg PIP_INDEX_URL=https://mirror.example/simple",
            "ARG PIP_INDEX_URL",
        ]
        if lock.pip
        else []
    )
    lines = [
        f"{_notes(spec, lock)}# docker build --tag {spec.name} - < Dockerfile",
        "# BASE: an image with micromamba, mamba or conda.",
        f"ARG BASE={DOCKER_BASE}",
        "FROM ${BASE}",
        "# From a mirror: --build-arg CHANNEL_1=https://mirror.example/conda-forge",
        *(f"ARG {variable}={channel.rstrip('/')}" for channel, variable in channels.items()),
        *pip,
        *_file("/tmp/explicit.txt", ["@EXPLICIT"], _docker_packages(lock, channels)),  # noqa: S108
        "RUN tool=$(command -v micromamba || command -v mamba || command -v conda) \\\n"
        f' && "$tool" create --yes --prefix {prefix} --file /tmp/explicit.txt \\\n'
        ' && "$tool" clean --all --yes',
        f"ENV PATH={prefix}/bin:$PATH",
    ]
    if lock.pip:
        own = any(item.name == "pip" for item in lock.packages)
        begin = "" if own else "python -m ensurepip && "
        end = "" if own else " && python -m pip uninstall --yes pip setuptools"
        command = _PIP_COMMAND.replace("requirements.txt", "/tmp/requirements.txt")  # noqa: S108
        lines += [
            *_file("/tmp/requirements.txt", _requirements(spec, lock).splitlines()),  # noqa: S108
            f"RUN {begin}{command}{end}",
        ]
    lines += [f"ENV {key}={_docker_quoted(value)}" for key, value in spec.variables.items()]
    if lock.version_of("python"):
        lines.append('CMD ["python"]')
    return "\n".join(lines) + "\n"


def _docker_packages(lock: Lock, channels: Mapping[str, str]) -> list[str]:
    """The packages' URLs as words of a shell, their channels as variables."""
    found = []
    for item in lock.packages:
        line = _explicit_line(item)
        channel = next((channel for channel in channels if item.url.startswith(channel)), "")
        rest = shlex.quote(line.removeprefix(channel))
        found.append(f'"${{{channels[channel]}}}/"{rest}' if channel else rest)
    return found


def _file(path: str, plain: Sequence[str], words: Sequence[str] = ()) -> list[str]:
    """Instructions that write a file; one word of a shell is at most 128 KiB long (Linux)."""
    every = [*map(shlex.quote, plain), *words]
    return [
        "RUN printf '%s\\n' \\\n"
        + "".join(f"  {word} \\\n" for word in every[begin : begin + _LINES])
        + f"  >> {path}"
        for begin in range(0, len(every), _LINES)
    ]


def _docker_quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).replace("$", "\\$")


def _notes(spec: EnvironmentSpec, lock: Lock) -> str:
    """Comments that every format begins with."""
    when = f", chosen {lock.locked:%Y-%m-%d %H:%M} UTC" if lock.locked != NEVER else ""
    text = f"# environment {spec.name}, lock {lock.digest[:16]}{when}\n"
    hosts = sorted({urlsplit(c).hostname or "" for c in lock.channels})
    local = [host for host in hosts if host.endswith(".invalid")]
    if local:
        text += (
            f"# {', '.join(local)} is a channel of this site's own: elsewhere, only the versions "
            "can be had.\n"
        )
    return text


def _channel_name(url: str) -> str:
    """A channel as people write it."""
    # What conda puts before a channel that is only a name.
    if (own := names.in_url(url)) is not None:
        return own
    base = canonical_url("x").removesuffix("x/")
    return url.removeprefix(base).rstrip("/")


def _yaml(document: dict[str, Any]) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 4096
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()

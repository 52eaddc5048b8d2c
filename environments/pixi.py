"""pixi.toml, and a pyproject.toml with pixi's tables: what its default environment asks for.

Packages are chosen here, for Linux: a pixi.lock is what keeps the exact ones.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from commons.messages import Message
from environments import match_spec, pip_lines
from environments.channel_names import channel_problem
from environments.encoding import clean, in_file, shown
from environments.errors import SpecError
from environments.kinds import MAX_TEXT
from environments.match_spec import Asked
from environments.messages import spec as texts

# Of a table's targets, those that a server here is.
_TARGETS = ("unix", "linux", "linux-64")
_TABLES = ("dependencies", "host-dependencies", "build-dependencies")
_PLACES = ("path", "git", "url", "index", "subdirectory", "rev", "branch", "tag")
_SPEC_KEYS = {"build": "build", "build-number": "build_number", "md5": "md5", "sha256": "sha256"}


@dataclass
class Manifest:
    """What was read of one."""

    name: str | None = None
    channels: list[str] = field(default_factory=list)
    asked: dict[str, Asked] = field(default_factory=dict)
    pip: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    cuda: str | None = None
    remarks: list[Message] = field(default_factory=list)


def read(text: str, file: str) -> Manifest:
    """What a manifest asks for. Raises SpecError with file, where it is known line, and remedy."""
    return _Reader(clean(text, file), file).read()


class _Reader:
    def __init__(self, text: str, file: str) -> None:
        self.text, self.file, self.found = text, file, Manifest()

    def read(self) -> Manifest:
        if len(self.text) > MAX_TEXT:
            raise in_file(self.file, texts.TOO_LARGE(most=MAX_TEXT // 1024))
        try:
            document: dict[str, Any] = tomllib.loads(self.text)
        except (ValueError, RecursionError) as error:
            reason = str(error)[:200]
            line = re.search(r"\(at line (\d+)", reason)
            problem = texts.NOT_TOML(reason=reason)
            raise in_file(self.file, problem, int(line[1]) if line else None) from error
        tool = self.table(document.get("tool", {}), "tool")
        root = self.table(tool["pixi"], "tool.pixi") if "pixi" in tool else document
        if root is not document:
            self._project(self.table(document.get("project", {}), "project"))
        workspace = self.table(root.get("workspace", root.get("project", {})), "workspace")
        if isinstance(name := workspace.get("name"), str):
            self.found.name = name
        self._channels(workspace)
        for feature in self._features(root):
            self._feature(feature)
        return self.found

    def error(self, key: str, problem: Message) -> SpecError:
        """An error at the line on which a key is given, where there is one."""
        pattern = re.compile(rf"""^\s*(?:-\s*)?["']?{re.escape(key)}["']?\s*(?:=|$)""")
        lines = enumerate(self.text.split("\n"), 1)
        line = next((number for number, line in lines if pattern.match(line)), None)
        return in_file(self.file, problem, line)

    def table(self, value: Any, key: str) -> Mapping[str, Any]:
        """A table. Raises SpecError for anything else."""
        if not isinstance(value, dict):
            raise self.error(key.rpartition(".")[2], texts.TABLE(what=shown(key)))
        return value

    def words(self, value: Any, key: str) -> str:
        """A short text on one line. Raises SpecError."""
        if not isinstance(value, str):
            raise self.error(key, texts.NO_TEXT(what=shown(key)))
        if len(value) > 500 or not value.isprintable():
            raise self.error(key, texts.LONG_TEXT(what=shown(key)))
        return value.strip()

    def _channels(self, workspace: Mapping[str, Any]) -> None:
        listed = workspace.get("channels", [])
        if not isinstance(listed, list):
            raise self.error("channels", texts.TABLE(what="channels"))
        for item in listed:
            named = item.get("channel") if isinstance(item, dict) else item
            channel = self.words(named, "channels")
            if problem := channel_problem(channel):
                raise self.error("channels", problem)
            self.found.channels.append(channel)

    def _features(self, root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """The tables of the environment ``default``."""
        chosen = self.table(root.get("environments", {}), "environments").get("default", [])
        names = chosen.get("features", []) if isinstance(chosen, dict) else chosen
        if not (isinstance(chosen, dict) and chosen.get("no-default-feature") is True):
            yield root
        features = self.table(root.get("feature", {}), "feature")
        for name in names if isinstance(names, list) else []:
            feature = features.get(name) if isinstance(name, str) else None
            if feature is None:
                raise self.error("environments", texts.NO_FEATURE(name=shown(str(name))))
            yield self.table(feature, f"feature.{name}")

    def _feature(self, feature: Mapping[str, Any]) -> None:
        targets = self.table(feature.get("target", {}), "target")
        ours = [self.table(targets[name], name) for name in _TARGETS if name in targets]
        for part in (feature, *ours):
            for key in _TABLES:
                for name, value in self.table(part.get(key, {}), key).items():
                    self._conda(name, value)
            for name, value in self.table(part.get("pypi-dependencies", {}), "pypi").items():
                self._pypi(name, value)
            activation = self.table(part.get("activation", {}), "activation")
            for name, value in self.table(activation.get("env", {}), "env").items():
                self.found.variables[name] = self.words(value, name)
        needs = self.table(feature.get("system-requirements", {}), "system-requirements")
        if isinstance(needs.get("cuda"), str | int | float):
            self.found.cuda = str(needs["cuda"])

    def _conda(self, name: str, value: Any) -> None:
        name, more = self.words(name, "a key"), ""
        version, channel = value, None
        if isinstance(value, dict):
            version, channel = value.get("version", "*"), value.get("channel")
            unknown = set(value) - {"version", "channel", "subdir", *_SPEC_KEYS}
            if unknown:
                raise self.error(
                    name,
                    texts.PIXI_KEYS(
                        name=shown(name), keys=[shown(key) for key in sorted(unknown)[:8]]
                    ),
                )
            keys = [key for key in (*_SPEC_KEYS, "subdir") if key in value]
            said = [f'{_SPEC_KEYS.get(key, key)}="{self.words(value[key], name)}"' for key in keys]
            more = f"[{','.join(said)}]" if said else ""
        version = self.words(version, name)
        before = f"{self.words(channel, name)}::" if channel is not None else ""
        text = f"{before}{name}{'' if version in ('', '*') else f' {version}'}{more}"
        try:
            asked = match_spec.read(text)
        except SpecError as error:
            raise self.error(name, error.message) from error
        if asked.channel is not None and (problem := channel_problem(asked.channel)):
            raise self.error(name, problem)
        self.found.asked[str((asked.channel, asked.spec))] = asked

    def _pypi(self, name: str, value: Any) -> None:
        name = self.words(name, "a key")
        version, extras = value, ""
        if isinstance(value, dict):
            if value.get("path") in (".", "./"):
                self.found.remarks.append(texts.PIXI_ITSELF(name=shown(name)))
                return
            place = next((key for key in _PLACES if key in value), None)
            if place:
                texts_of = {"path": texts.PIP_FOLDER, "index": texts.PIP_INDEX}
                line = shown(f"{name} = {{{place} = {value[place]!s}}}")
                raise self.error(name, texts_of.get(place, texts.PIP_URL)(text=line))
            listed = value.get("extras", [])
            names = [self.words(one, name) for one in listed] if isinstance(listed, list) else []
            version, extras = value.get("version", "*"), f"[{','.join(names)}]" if names else ""
        version = self.words(version, name)
        self._requirement(name, f"{name}{extras}{'' if version == '*' else version}")

    def _requirement(self, key: str, text: str) -> None:
        if problem := pip_lines.problem(text):
            raise self.error(key, problem)
        name = canonicalize_name(Requirement(text).name)
        self.found.pip[name] = str(Requirement(text))

    def _project(self, project: Mapping[str, Any]) -> None:
        """pyproject.toml's own: name, Python and what it needs, which pixi takes as well."""
        if isinstance(name := project.get("name"), str):
            self.found.name = name
        if isinstance(python := project.get("requires-python"), str) and python.strip():
            self._conda("python", python)
        needs = project.get("dependencies", [])
        for item in needs if isinstance(needs, list) else []:
            self._requirement("dependencies", self.words(item, "dependencies"))

"""``servers.mounts``: folders of the machine that people's servers may have, by name.

Data sets, scratch space, what a team has on a file server: people are told of them before they
start a server, and where they are in it.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath
from string import Formatter

from pydantic import Field, model_validator

from commons.site.parts import Section, Words

USERNAME = "{username}"
# Who has one of these in a container has the machine, or what the agent itself stands on.
_NEVER_FROM = (
    "/", "/boot", "/dev", "/etc", "/proc", "/root", "/run", "/sys", "/var/lib/docker", "/var/run",
)  # fmt: skip
# What a server is made of; the home itself is always the person's own.
_NEVER_AT = (
    "/bin", "/dev", "/etc", "/lib", "/lib64", "/opt/conda", "/opt/labcommons", "/proc", "/run",
    "/sbin", "/sys", "/tmp", "/usr", "/var/run",  # noqa: S108  (the servers')
)  # fmt: skip
_WHOLE = ("/", "/home", f"/home/{USERNAME}", "/opt", "/srv", "/var")


class Mount(Section):
    """One folder of the machine: where it is there, and where in the server.

    ``{username}`` stands for the person's name in both. What lies above it on the machine must be
    writable for administrators alone: whoever can put a link there chooses what is mounted.
    """

    source: str = Field(max_length=1000)
    target: str = Field(max_length=1000)
    read_only: bool = True
    only_if_asked: bool = Field(
        False, description="not in every server: only where DockerSpawner's settings name it"
    )
    title: Words | None = Field(None, description="for people, by language; else its name")
    only_for: list[str] = Field(
        [], description="such as team-vision or course-ml101: in the servers of these alone"
    )
    writers: list[str] = Field(
        [], description="with read_only: false: who may write, where not everybody who has it"
    )

    @model_validator(mode="after")
    def _places(self) -> Mount:
        for key, path in (("source", self.source), ("target", self.target)):
            if problem := _problem(path):
                raise ValueError(f"{key}: {path!r} {problem}")
        if _within(self.source, _NEVER_FROM[1:]) or self.source == "/":
            raise ValueError(f"source: {self.source!r} is the machine's own, and nobody else's")
        if self.target in _WHOLE or _within(self.target, _NEVER_AT):
            raise ValueError(f"target: {self.target!r} is what a server itself needs")
        if self.writers and self.read_only:
            raise ValueError("writers: name nobody where read_only is not false")
        return self

    def is_for(self, scopes: Collection[str]) -> bool:
        """Whether somebody's server has it, who is in these teams and courses (``team-NAME``)."""
        return not self.only_for or not set(self.only_for).isdisjoint(scopes)

    def is_writable(self, scopes: Collection[str]) -> bool:
        """Whether it is mounted writable; the folder's own modes then say what may be written."""
        return not self.read_only and (not self.writers or not set(self.writers).isdisjoint(scopes))

    def places(self, username: str) -> tuple[str, str]:
        """Source and target for one person."""
        return self.source.replace(USERNAME, username), self.target.replace(USERNAME, username)


def _problem(path: str) -> str:
    """What is wrong with a path, or nothing."""
    if not path.startswith("/") or path.startswith("//") or not path.isprintable():
        return "must be an absolute path, such as /data/sets"
    if str(PurePosixPath(path)) != path or ".." in PurePosixPath(path).parts:
        return f"must be written without .., doubled and last slashes: {PurePosixPath(path)}"
    try:
        fields = [
            field + (f"!{how}" if how else "") + (f":{spec}" if spec else "")
            for _text, field, spec, how in Formatter().parse(path)
            if field is not None
        ]
    except ValueError as error:
        return f"cannot be filled in: {error}"
    if any("{" + field + "}" != USERNAME for field in fields) or "{{" in path or "}}" in path:
        return f"may have {USERNAME} in it, and no other part in braces"
    return ""


def _within(path: str, folders: tuple[str, ...]) -> bool:
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)

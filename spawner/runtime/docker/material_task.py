"""What a fetch of a course's materials does, in its container: what is there, as one more commit.

``python -I -m spawner.runtime.docker.material_task WORDS`` with the words as one JSON object; the
answer is one JSON object, as ``spec.Fetched`` has it. What is in a repository or folder becomes one
more commit of a repository of our own (``STORE``), from which students' servers merge: its history
is a line that only grows, whatever is done to the other one's, and has nothing that was not given
out. Objects come first and the branch moves last, so that who is killed anywhere leaves what was
there. No program of the materials runs, no link is followed, and nothing is written but below
``MATERIALS``. Standard library alone.
"""

from __future__ import annotations

import json
import os
import posixpath
import resource
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MATERIALS, STAFF = Path("/materials"), Path("/staff")
STORE, STATE, BRANCH = "repository.git", "state.json", "main"
FOLDER = "materials"  # in the instructors' area: what they give out
SECONDS = 300
MOST_FILES, MOST_BYTES, LARGEST = 20_000, 2**30, 100 * 2**20
MOST_DEPTH = 32
TOLD = 20  # of what was left out, by name
# What nobody means to give out.
NOT_GIVEN = {".git", ".ipynb_checkpoints", "__pycache__"}
_LINK, _REPOSITORY = "120000", "160000"
# What git says, and what it is; the first that fits.
_SIGNS = (
    ("could not read Username", "login"),
    ("Authentication failed", "login"),
    ("error: 401", "login"),
    ("error: 403", "login"),
    ("not found", "gone"),
    ("error: 404", "gone"),
    ("does not appear to be a git repository", "gone"),
    ("No space left", "disk"),
    ("Disk quota exceeded", "disk"),
    ("File too large", "bytes"),
    ("file size limit", "bytes"),
    ("signal 25", "bytes"),
    ("unable to access", "unreachable"),
    ("Could not resolve", "unreachable"),
    ("early EOF", "unreachable"),
)


class FailedError(Exception):
    """It cannot be fetched as it is; ``why`` is one of ``spec.FetchFailure``."""

    def __init__(self, why: str, detail: str = "") -> None:
        super().__init__(f"{why} {detail}")
        self.why, self.detail = why, detail[:300]


@dataclass(frozen=True)
class Entry:
    """One file or link, as git keeps it."""

    mode: str
    object: str
    path: str
    size: int = 0


class Git:
    """git without anybody's settings, hooks, helpers and questions.

    Args:
        protocols: the ways to other repositories; of what is asked from outside, https alone.
    """

    def __init__(self, protocols: str, until: float) -> None:
        self.protocols, self.until = protocols, until
        passed = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        self.env = {
            **passed,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_LITERAL_PATHSPECS": "1",
            "LC_ALL": "C",
        }
        for key in ("AUTHOR", "COMMITTER"):
            self.env |= {
                f"GIT_{key}_NAME": "LabCommons",
                f"GIT_{key}_EMAIL": "labcommons@localhost",
            }

    def __call__(
        self,
        repository: Path,
        *words: str,
        given: bytes = b"",
        far: bool = False,
        **env: str,
    ) -> bytes:
        """Run it; what it said. ``far``: it asks another's repository. Raises FailedError."""
        settings = {
            # What is larger goes from disk to disk: the container's memory is small.
            "core.bigFileThreshold": "16m",
            "core.hooksPath": "/dev/null",
            "core.autocrlf": "false",
            "core.quotePath": "false",
            "credential.helper": "",
            "fetch.recurseSubmodules": "false",
            "gc.auto": "0",
            "http.lowSpeedLimit": "1000",
            "http.lowSpeedTime": "30",
            "maintenance.auto": "false",
            "safe.directory": "*",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        allowed = self.protocols if far else "file"
        try:
            done = subprocess.run(
                ["git", *options, f"--git-dir={repository}", *words],
                check=False,
                input=given,
                capture_output=True,
                env={**self.env, "GIT_ALLOW_PROTOCOL": allowed, **env},
                timeout=max(1, self.until - time.monotonic()),
            )
        except subprocess.TimeoutExpired:
            raise FailedError("time") from None
        if done.returncode:
            text = done.stderr.decode("utf-8", "replace").strip()
            why = next((why for sign, why in _SIGNS if sign in text), "failed")
            lines = [line for line in text.splitlines() if line.strip()]
            raise FailedError(why, lines[-1] if lines else f"exit code {done.returncode}")
        return done.stdout


class Fetch:
    """One fetch into a folder of materials.

    Args:
        limits: files in all, bytes in all, bytes of one file.
    """

    def __init__(
        self,
        materials: Path,
        protocols: str = "https",
        limits: tuple[int, int, int] = (MOST_FILES, MOST_BYTES, LARGEST),
        seconds: float = SECONDS,
    ) -> None:
        self.materials, self.limits = materials, limits
        self.store = materials / STORE
        self.scratch = materials / ".scratch.git"
        self.git = Git(protocols, time.monotonic() + seconds)
        self.left_out: list[list[str]] = []

    def repository(self, url: str, branch: str) -> dict[str, Any]:
        """Give out what is in a branch of a repository; without a name, in its first one."""
        source = f"{url} {branch}"
        self.prepare()
        wanted = f"refs/heads/{branch}" if branch else "HEAD"
        said = self.git(self.scratch, "ls-remote", "--", url, wanted, far=True)
        found = [line.split("\t") for line in said.decode("utf-8", "replace").splitlines()]
        heads = [one[0] for one in found if one[-1] == wanted]
        if not heads:
            raise FailedError("branch" if branch else "empty", branch)
        known = self.state()
        if known.get("source") == source and known.get("theirs") == heads[0] and self.head():
            return self.told(known)
        self.git(
            self.scratch,
            *("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head"),
            *("--", url, f"+{wanted}:refs/theirs"),
            far=True,
        )
        return self.give_out(self.checked(self.in_commit("refs/theirs")), source, heads[0])

    def folder(self, folder: Path) -> dict[str, Any]:
        """Give out what is in a folder."""
        self.prepare()
        found = list(self.walk(folder)) if folder.is_dir() and not folder.is_symlink() else []
        files = [one for one in found if one.mode != _LINK]
        paths = "".join(f"{folder / one.path}\n" for one in files).encode(
            "utf-8", "surrogateescape"
        )
        words = ("hash-object", "-w", "--no-filters")
        said = self.git(self.scratch, *words, "--stdin-paths", given=paths).decode().split()
        objects = dict(zip((one.path for one in files), said, strict=True))
        for one in (one for one in found if one.mode == _LINK):
            target = os.fsencode(os.readlink(folder / one.path))
            objects[one.path] = (
                self.git(self.scratch, *words, "--stdin", given=target).decode().strip()
            )
        entries = self.checked(replace(one, object=objects[one.path]) for one in found)
        return self.give_out(entries, "folder", "")

    def walk(self, folder: Path) -> Iterator[Entry]:
        """Files and links, not read yet; what is neither, and what is too large, is left out."""
        count = 0
        stack = [""]
        while stack:
            here = stack.pop()
            for one in sorted(os.scandir(folder / here), key=lambda found: found.name):
                path = f"{here}{one.name}"
                if one.name in NOT_GIVEN:
                    continue
                count += 1
                if count > self.limits[0]:
                    raise FailedError("files", str(self.limits[0]))
                facts = one.stat(follow_symlinks=False)
                mode, size = facts.st_mode, facts.st_size
                if not path.isprintable():
                    self.leave(path, "name")
                elif stat.S_ISDIR(mode) and path.count("/") >= MOST_DEPTH:
                    self.leave(path, "depth")
                elif stat.S_ISLNK(mode):
                    yield Entry(_LINK, "", path, size)
                elif not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                    self.leave(path, "special")
                elif stat.S_ISREG(mode) and size > self.limits[2]:
                    self.leave(path, "large")
                elif not os.access(folder / path, os.R_OK):
                    self.leave(path, "denied")
                elif stat.S_ISDIR(mode):
                    stack.append(f"{path}/")
                else:
                    yield Entry("100755" if mode & stat.S_IXUSR else "100644", "", path, size)

    def in_commit(self, name: str) -> Iterator[Entry]:
        """What is in a commit."""
        for line in self.git(self.scratch, "ls-tree", "-r", "-l", "-z", name).split(b"\0"):
            if line:
                facts, _, path = line.partition(b"\t")
                mode, _, object_, size = facts.decode().split()
                count = int(size) if size.isdigit() else 0
                yield Entry(mode, object_, path.decode("utf-8", "surrogateescape"), count)

    def checked(self, found: Iterable[Entry]) -> list[Entry]:
        """What can be given out; the rest is left out, or too much."""
        most_files, most_bytes, largest = self.limits
        entries: list[Entry] = []
        total = 0
        for one in found:
            path = one.path
            if one.mode == _REPOSITORY:
                self.leave(path, "repository")
            elif not path.isprintable() or '"' in path or "\\" in path:
                self.leave(path, "name")
            elif path.count("/") > MOST_DEPTH:
                self.leave(path, "depth")
            elif one.size > largest:
                self.leave(path, "large")
            elif one.mode == _LINK and not self.stays(path, one.object, one.size):
                self.leave(path, "link")
            else:
                total += one.size
                entries.append(one)
                if len(entries) > most_files:
                    raise FailedError("files", str(most_files))
                if total > most_bytes:
                    raise FailedError("bytes", str(most_bytes))
        return entries

    def stays(self, path: str, object_: str, size: int) -> bool:
        """Whether a link leads to something within, whatever other links there are."""
        if size > 4096:
            return False
        target = self.git(self.scratch, "cat-file", "blob", object_).decode("utf-8", "replace")
        parts = target.split("/")
        up = 0
        while up < len(parts) and parts[up] in ("..", "."):
            up += 1
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(path), *parts[:up], "x"))
        # After a name a step up may be one from wherever that name leads to.
        return not target.startswith("/") and ".." not in parts[up:] and not inside.startswith("..")

    def give_out(self, entries: Sequence[Entry], source: str, theirs: str) -> dict[str, Any]:
        """One more commit of the store, where that has something else than the last one."""
        index = str(self.scratch / "given")
        lines = "".join(f"{one.mode} {one.object}\t{one.path}\0" for one in entries)
        self.git(
            self.scratch,
            *("update-index", "-z", "--add", "--index-info"),
            given=lines.encode("utf-8", "surrogateescape"),
            GIT_INDEX_FILE=index,
        )
        tree = self.git(self.scratch, "write-tree", GIT_INDEX_FILE=index).decode().strip()
        head = self.head()
        if (
            not head
            or self.git(self.store, "rev-parse", f"{head}^{{tree}}").decode().strip() != tree
        ):
            parent = ("-p", head) if head else ()
            words = ("commit-tree", "-m", "Materials", *parent, tree)
            commit = self.git(self.scratch, *words).decode().strip()
            self.git(self.scratch, "update-ref", "refs/heads/next", commit)
            if (
                "refs/theirs"
                in self.git(self.scratch, "for-each-ref", "--format=%(refname)").decode()
            ):
                self.git(self.scratch, "update-ref", "-d", "refs/theirs")
            (self.scratch / "shallow").unlink(missing_ok=True)
            self.git(
                self.store,
                *("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--"),
                *(str(self.scratch), f"refs/heads/next:refs/heads/{BRANCH}"),
            )
        state = {
            "source": source,
            "theirs": theirs,
            "files": len(entries),
            "bytes": sum(one.size for one in entries),
            "left_out": self.left_out[:TOLD],
            "more_left_out": max(0, len(self.left_out) - TOLD),
        }
        new = self.materials / f".{STATE}"
        new.write_text(json.dumps(state), "utf-8")
        new.replace(self.materials / STATE)
        return self.told(state)

    # -- the store -------------------------------------------------------------------------------

    def prepare(self) -> None:
        """A store that is whole, and an empty repository beside it which can use what that has."""
        self.clear()
        if not self.store.is_dir():
            new = self.materials / f".new-{STORE}"
            shutil.rmtree(new, ignore_errors=True)
            self.git(new, "init", "--quiet", "--bare", f"--initial-branch={BRANCH}")
            new.rename(self.store)
        # Of one that was killed: nobody else writes here.
        for stale in (*self.store.glob("*.lock"), *self.store.glob("refs/heads/*.lock")):
            stale.unlink(missing_ok=True)
        for stale in self.store.glob("objects/pack/tmp_*"):
            stale.unlink(missing_ok=True)
        self.git(self.scratch, "init", "--quiet", "--bare")
        info = self.scratch / "objects" / "info"
        info.mkdir(exist_ok=True)
        (info / "alternates").write_text(f"{self.store / 'objects'}\n", "utf-8")

    def clear(self) -> None:
        """Take away what was only on the way."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def head(self) -> str:
        """The commit that is given out; empty before the first."""
        if not self.store.is_dir():
            return ""
        with suppress(FailedError):
            name = f"refs/heads/{BRANCH}"
            return self.git(self.store, "rev-parse", "--quiet", "--verify", name).decode().strip()
        return ""

    def state(self) -> dict[str, Any]:
        """What the last fetch wrote down."""
        with suppress(OSError, ValueError):
            found = json.loads((self.materials / STATE).read_text("utf-8"))
            return found if isinstance(found, dict) else {}
        return {}

    def told(self, state: dict[str, Any]) -> dict[str, Any]:
        """The answer."""
        keys = ("files", "bytes", "left_out", "more_left_out")
        return {"revision": self.head(), **{key: state[key] for key in keys}}

    def leave(self, path: str, why: str) -> None:
        """It is not given out, and its instructors are told."""
        shown = path.encode("utf-8", "replace").decode()
        self.left_out.append([shown[:200], why])


def main(words: str) -> dict[str, Any]:
    """The answer, also of what failed."""
    asked = json.loads(words)
    os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    fetch = Fetch(MATERIALS)
    try:
        if asked["git"]:
            return fetch.repository(asked["git"], asked["branch"])
        return fetch.folder(STAFF / FOLDER)
    except FailedError as error:
        return {"failure": error.why, "detail": error.detail}
    except OSError as error:
        full = error.errno in (28, 122)  # ENOSPC, EDQUOT
        return {"failure": "disk" if full else "failed", "detail": str(error.strerror)[:300]}
    finally:
        fetch.clear()


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1])))

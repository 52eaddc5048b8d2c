"""Brings a course's materials into the person's own copy: nbgitpuller's merge, and what it lacks.

    python -I -m labcommons_materials_update SOURCE FOLDER

SOURCE is the course's repository (a history that only grows), FOLDER the person's copy. What the
person wrote is never lost: nbgitpuller keeps their side of what both changed; what is in the way of
a new file, and, where nothing can be merged, what they have changed, is kept beside it under a name
with the date. Says one JSON object: ``kept``, pairs of what is now from the course and what the
person's is called; ``problem``, one of ``labcommons_materials.problem``, and ``detail``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

BRANCH, THEIRS = "main", "refs/labcommons/theirs"
# Seconds after which a lock of git's is of a program that was killed.
STALE = 60
# The person's own settings must not stand in the way: hooks, signatures, line ends, editors.
_SETTINGS = """\
[user]
    name = LabCommons
    email = labcommons@localhost
[safe]
    directory = *
[core]
    hooksPath = /dev/null
    quotePath = false
    autocrlf = false
    excludesFile = /dev/null
    attributesFile = /dev/null
[commit]
    gpgSign = false
[merge]
    renames = false
[advice]
    detachedHead = false
[gc]
    auto = 0
[maintenance]
    auto = false
"""
_UNDER_WAY = ("rebase-merge", "rebase-apply", "CHERRY_PICK_HEAD", "REVERT_HEAD", "BISECT_LOG")


class ProblemError(Exception):
    """It cannot be brought up to date; ``code`` is one of ``labcommons_materials.problem``."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code, self.detail = code, detail


class Copy:
    """One person's copy of one course's materials."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.git_folder = folder / ".git"
        self.new = folder.parent / f".{folder.name}.new"
        self.day = time.strftime("__%Y%m%d%H%M%S")
        self.kept: list[tuple[str, str]] = []

    def update(self) -> None:
        """Raises ProblemError, OSError, CalledProcessError."""
        if self.folder.is_symlink() or (self.folder.exists() and not self.folder.is_dir()):
            raise ProblemError("in_the_way")
        shutil.rmtree(self.new, ignore_errors=True)  # of one that was killed
        if not self.folder.exists():
            self.pull(self.new)
            self.new.rename(self.folder)
        elif not self.git_folder.exists():
            self.begin_anew()
        elif self.origin() != str(self.source):
            raise ProblemError("other_repository")
        else:
            self.merge()

    def origin(self) -> str:
        """Where the copy's repository is from; that of one which is damaged is ours."""
        done = self.git("config", "--local", "remote.origin.url", check=False)
        return done.strip() or (str(self.source) if not self.is_whole() else "")

    def is_whole(self) -> bool:
        """Whether git can read it."""
        return bool(self.git("rev-parse", "--verify", "--quiet", "HEAD", check=False))

    # -- the usual way ---------------------------------------------------------------------------

    def merge(self) -> None:
        """nbgitpuller's, after what would stop it is out of its way."""
        self.unlock()
        try:
            self.settle()
            self.clear_the_way(THEIRS)
            self.pull(self.folder)
            self.mend_notebooks()
        except ProblemError:
            raise
        except Exception as error:
            if _is_full(error):
                raise
            print(f"{self.folder}: {error!r}", file=sys.stderr)
            self.begin_anew()

    def unlock(self) -> None:
        """A lock that a killed program left; one that is in use is waited for another time."""
        lock = self.git_folder / "index.lock"
        with suppress(FileNotFoundError, NotADirectoryError):
            if time.time() - lock.stat().st_mtime < STALE:
                raise ProblemError("busy")
            lock.unlink()

    def settle(self) -> None:
        """Nothing is staged, and no merge or the like under way: files stay as they are."""
        for name in _UNDER_WAY:
            with suppress(OSError):
                path = self.git_folder / name
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.git("fetch", "--quiet", str(self.source), f"+{BRANCH}:{THEIRS}")
        self.git("merge-base", "HEAD", THEIRS)  # without one, nothing can be merged
        self.git("reset", "--quiet", "--mixed")

    def clear_the_way(self, commit: str) -> None:
        """A folder where a file comes, a file or link where a folder comes: kept beside it.

        git would take some of that away, and stop at the rest.
        """
        for path in self.names("ls-tree", "-r", "--name-only", "-z", commit):
            place = self.folder
            *above, name = path.split("/")
            for part in above:
                place = place / part
                if place.is_symlink() or (place.exists() and not place.is_dir()):
                    self.keep(place)
            if (place / name).is_dir() and not (place / name).is_symlink():
                self.keep(place / name)

    def pull(self, folder: Path) -> None:
        """nbgitpuller, into a folder."""
        from nbgitpuller.pull import GitPuller

        begins = "Renamed "
        for line in GitPuller(str(self.source), str(folder), branch=BRANCH, depth=0).pull():
            print(line.rstrip(), file=sys.stderr)
            if line.startswith(begins):
                before, _, after = line[len(begins) :].partition(" to ")
                after = after.partition(" to avoid conflict")[0]
                self.kept.append((self.shown(Path(before)), self.shown(Path(after))))

    def mend_notebooks(self) -> None:
        """A notebook whose lines were merged into none stays the person's, the other beside."""
        mine, theirs = "HEAD^1", f"origin/{BRANCH}"
        if not self.git("rev-parse", "--verify", "--quiet", "HEAD^2", check=False):
            return  # nothing was merged
        for path in self.names("diff", "--name-only", "-z", mine, "HEAD"):
            place = self.folder / path
            if not path.endswith(".ipynb") or place.is_symlink() or _is_json(place):
                continue
            if not self.git("ls-tree", mine, "--", path) or not self.git(
                "ls-tree", theirs, "--", path
            ):
                continue
            beside = self.dated(place)
            beside.write_bytes(self.run("show", f"{theirs}:{path}").stdout)
            self.git("checkout", "--quiet", mine, "--", path)
            self.git("commit", "--quiet", "--message", "One notebook, not two")
            self.kept.append((self.shown(beside), self.shown(place)))

    # -- where nothing can be merged --------------------------------------------------------------

    def begin_anew(self) -> None:
        """The course's files as they are now; what differs and was never the course's is kept."""
        self.pull(self.new)
        if os.path.lexists(self.git_folder):
            old = self.folder.parent / f".{self.folder.name}-git{self.day}"
            given = self.ever_given(self.git_folder)
            self.git_folder.rename(old)
        else:
            given = set()
        (self.new / ".git").rename(self.git_folder)
        shutil.rmtree(self.new)
        given |= self.ever_given(self.git_folder)
        self.git("reset", "--quiet", "--mixed")
        self.clear_the_way("HEAD")
        for path in self.names("diff-files", "--name-only", "-z", "--diff-filter=d"):
            place = self.folder / path
            link = place.is_symlink()
            if (
                link
                or self.git("hash-object", "--no-filters", "--", str(place)).strip() not in given
            ):
                self.keep(place)
        self.git("checkout-index", "--quiet", "--all", "--force")
        self.git("update-index", "--quiet", "--refresh", check=False)

    def ever_given(self, repository: Path) -> set[str]:
        """What the course has given out, as far as a repository knows: names of objects."""
        where = f"--git-dir={repository}"
        listed = self.git(where, "rev-list", "--objects", f"origin/{BRANCH}", check=False)
        return {line.partition(" ")[0] for line in listed.splitlines()}

    def keep(self, place: Path) -> None:
        """Under a name with the date, before its ending."""
        beside = self.dated(place)
        place.rename(beside)
        self.kept.append((self.shown(place), self.shown(beside)))

    def dated(self, place: Path) -> Path:
        """A name that nothing has."""
        for number in range(1000):
            more = f"-{number}" if number else ""
            beside = place.with_name(f"{place.stem}{self.day}{more}{place.suffix}")
            if not os.path.lexists(beside):
                return beside
        raise ProblemError("in_the_way", str(place))

    def shown(self, place: Path) -> str:
        """A path within the copy."""
        with suppress(ValueError):
            return str(place.relative_to(self.folder))
        return str(place)

    # -- git -------------------------------------------------------------------------------------

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        """Raises CalledProcessError."""
        where = ("-C", str(self.folder))
        return subprocess.run(["git", *where, *words], check=check, capture_output=True)

    def git(self, *words: str, check: bool = True) -> str:
        """What it says; nothing where it fails and that is no matter."""
        done = self.run(*words, check=check)
        return "" if done.returncode else os.fsdecode(done.stdout)

    def names(self, *words: str) -> Iterator[str]:
        """Paths that it lists."""
        return (path for path in self.git(*words).split("\0") if path)


def _is_json(place: Path) -> bool:
    try:
        json.loads(place.read_bytes())
    except (OSError, ValueError):
        return False
    return True


def _is_full(error: BaseException) -> bool:
    said = str(getattr(error, "stderr", "") or "") + str(error)
    return (
        getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        or "No space left" in said
        or "quota exceeded" in said
    )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One at a time, also of two servers of the same person. Raises ProblemError."""
    above = folder.parent
    if above.is_symlink() or (above.exists() and not above.is_dir()):
        raise ProblemError("in_the_way", str(above))
    above.mkdir(parents=True, exist_ok=True)
    file = os.open(above / f".{folder.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def update(source: Path, folder: Path) -> dict[str, Any]:
    """The answer, also of what went wrong."""
    copy = Copy(source, folder)
    problem, detail = "", ""
    try:
        with alone(folder):
            copy.update()
    except ProblemError as error:
        problem, detail = error.code, error.detail
    except Exception as error:
        print(f"{folder}: {error!r}", file=sys.stderr)
        problem, detail = "full" if _is_full(error) else "failed", str(error)[:300]
    return {"kept": copy.kept, "problem": problem, "detail": detail}


@contextmanager
def plain_git() -> Iterator[None]:
    """git without anybody's settings and language."""
    before = dict(os.environ)
    for name in list(os.environ):
        if name.startswith(("GIT_", "LC_")) or name == "LANGUAGE":
            del os.environ[name]
    with tempfile.NamedTemporaryFile("w", suffix=".gitconfig") as settings:
        settings.write(_SETTINGS)
        settings.flush()
        os.environ |= {
            "GIT_CONFIG_GLOBAL": settings.name,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_EDITOR": "true",
            "LC_ALL": "C",
        }
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


def main() -> None:
    """Update, and say what came of it."""
    source, folder = map(Path, sys.argv[1:])
    with plain_git():
        print(json.dumps(update(source, folder)))


if __name__ == "__main__":
    main()

"""What a builder container does, for a person and with nothing but that person's rights.

``python -I -m environments.builds.task_main FOLDER`` reads FOLDER/job.json. Each line that it
prints is a JSON object: ``{"progress": {…}}``, then one ``{"result": {…}}`` or
``{"error": "…"}``. The hub reads them from the container's log, and believes nothing in them that
matters to others.

It has eight works. ``lock`` chooses the packages, as the user of our services, so that the index of
the channels is fetched once for all, the offline channel can grow, and private channels and package
indexes are asked with the site's logins: no program of a package runs there. ``install`` builds a
version from a lock and makes it the current one, as the person or lead who asked, so that the
kernel decides whether they may. ``decide`` notes in a version that it is deprecated or withdrawn,
``look`` says what is in a folder, and ``delete`` removes an environment, likewise. ``image``
builds an image of it, for an administrator, ``prune`` removes what nobody needs, and ``rescan``
compares all versions with the advisories: these alone may ask the agent or the store, and nothing
of a package runs in them.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from commons.messages import Message, verbatim
from commons.site import Environments, Signatures
from environments import own_channels as names
from environments import policy, private
from environments.builds.messages import kind_of
from environments.builds.names import VERSIONS
from environments.builds.prefix_scan import look
from environments.builds.repository import MAX_PACKAGES
from environments.builds.result_channel import MAX_LINE, say, serve
from environments.channel import OFFLINE_URL, Source, canonical_url, choose
from environments.errors import BuildError, ExportError
from environments.export import FORMATS, export
from environments.lock import Lock, answering, read_lock
from environments.maker import Locked, Maker
from environments.messages import making as texts
from environments.messages import steps
from environments.progress import Progress
from environments.spec import EnvironmentSpec, parse_spec
from environments.stamp import read_stamp, write_stamp
from kernels.files import read
from kernels.hostile import parse_json

SCRATCH = Path("/tmp")  # noqa: S108  (the container's own)
MAX_WORDS = 8000  # characters of the reason why a build failed
_MAX_KERNEL_JSON = 64 * 1024
_TRASH = ".removed-"


def main() -> int:
    """Do the work that job.json describes; the exit code is 0 when it was done."""
    job = json.loads(Path(sys.argv[1], "job.json").read_text("utf-8"))
    os.umask(int(job["umask"], 8))
    try:
        works = {
            "lock": _lock,
            "install": _install,
            "delete": _delete,
            "decide": _decide,
            "look": _look,
            "image": _image,
            "prune": _tidy_up,
            "rescan": _rescan,
        }
        say(result=works[job["work"]](job))
    except BuildError as error:
        _fail(error, error.message)
        return 1
    except OSError as error:
        _fail(error, _plain(error))
        return 1
    return 0


def _fail(error: Exception, message: Message) -> None:
    """Say why it failed: in English for the log, and as data for who reads another language."""
    words = str(message)[:MAX_WORDS]
    data = message.as_json()
    whole = len(json.dumps(data)) + len(json.dumps(words)) < MAX_LINE - 1024
    say(error=words, kind=kind_of(error), message=data if whole else None)


def _tell(
    percent: int,
    step: int,
    message: Message,
) -> None:
    """Say how far it is."""
    say(progress={"percent": percent, "step": step, "message": message.as_json()})


def _plain(error: OSError) -> Message:
    """An error of the system, with the remedy where there is one."""
    remedies = {
        errno.EACCES: texts.MAY_NOT_WRITE,
        errno.EPERM: texts.MAY_NOT_DO,
        errno.ENOSPC: texts.DISK_FULL,
        errno.EDQUOT: texts.QUOTA_USED_UP,
        errno.EROFS: texts.READ_ONLY,
    }
    remedy = remedies.get(error.errno or 0)
    reason = remedy() if remedy else verbatim(error.strerror or str(error))
    return texts.OF_FILE(file=error.filename, reason=reason) if error.filename else reason


def _report(low: int, high: int) -> Any:
    """Passes progress on, its percentages between two bounds of the whole job."""

    def report(progress: Progress) -> None:
        percent = low + progress.percent * (high - low) // 100
        _tell(percent, progress.step, progress.message)

    return report


def _spec(job: dict[str, Any]) -> EnvironmentSpec:
    return parse_spec(
        job["spec"],
        name=job["name"],
        words=job["words"] or None,
        defaults=Environments.model_validate(job["settings"]).default_channels,
    )


def _maker(job: dict[str, Any], cache: str, report: Any) -> Maker:
    settings = Environments.model_validate(job["settings"])
    lent = Path(job["lent"]) if job.get("lent") else None
    maker = Maker(settings, Path(job["channel"]), Path(cache), report, lent)
    maker.own = job.get("own_channels") or maker.own
    return maker


# Choosing packages -------------------------------------------------------------------------------


def _lock(job: dict[str, Any]) -> dict[str, Any]:
    """No program of a package runs here, also not for pip (``environments.pip_as``)."""
    spec = _spec(job)
    target = SCRATCH / "pixi.lock"
    maker = _maker(job, job["cache"], _report(2, 28))
    maker.apart = True  # what people ask for is not everybody's to see
    if job["lock"]:
        target.write_text(job["lock"], "utf-8")
    # A lock for another spec is none: what is installed is what somebody can read.
    given = answering(spec, target) if job["lock"] else None
    if given is not None:
        lock, sources = given, _sources(maker, spec, given)
        maker.note_use(lock)
    else:
        if job["lock"]:  # of what this was changed from
            maker.prefer = target.rename(SCRATCH / "before.lock")
        target.unlink(missing_ok=True)
        policy.enforce(policy.check(spec, None, maker.settings, datetime.now(UTC).date()))
        locked = maker.lock(spec, target)
        lock, sources = locked.lock, list(locked.sources)
    maker.check_channels(lock.channels)
    maker.check_kernel(spec, lock)
    place = Path(job.get("private") or SCRATCH)
    own = any(names.in_url(source.url) for source in sources)
    if maker.settings.credentials or job.get("fetch_all") or own:
        _tell(28, 0, steps.FETCHING_PRIVATE())
        sources = private.fetch(sources, lock, maker.credentials, place, bool(job.get("fetch_all")))
    if lock.pip:
        _tell(29, 0, steps.FETCHING_PIP())
        private.wheels(maker.wheels(spec, Locked(lock, tuple(sources))), place)
    return {
        "lock": lock.path.read_text("utf-8"),
        "sources": [asdict(source) for source in sources],
        "chosen": _chosen(spec, lock, maker),
    }


def _chosen(spec: EnvironmentSpec, lock: Lock, maker: Maker) -> dict[str, Any]:
    """All that is said of a version by its lock; said here, where no program of a package runs."""
    names = [(item.name, item.version, item.channel) for item in lock.packages]
    names += [(item.name, item.version, "pypi") for item in lock.pip]
    if len(names) > MAX_PACKAGES:
        raise BuildError(texts.TOO_MANY_PACKAGES(count=len(names), most=MAX_PACKAGES))
    findings = policy.check(spec, lock, maker.settings, datetime.now(UTC).date())
    return {
        "version": maker.version(spec, lock),
        "python": lock.version_of("python"),
        "lock_digest": lock.digest,
        "tag": spec.about.tag or None,
        "packages": [
            dict(zip(("name", "version", "channel"), each, strict=True)) for each in names
        ],
        "findings": [finding.as_json() for finding in findings],
        "exports": _exports(spec, lock),
    }


def _sources(maker: Maker, spec: EnvironmentSpec, lock: Lock) -> list[Source]:
    """Where the packages of a lock come from that was made before."""
    day = f"{lock.locked:%Y-%m-%d}"
    _tell(5, 1, steps.USING_LOCK_OF(day=day))
    found = []
    if OFFLINE_URL in lock.channels:
        found.append(Source("offline", OFFLINE_URL, str(maker.channel)))
    online = [channel for channel in spec.all_channels if canonical_url(channel) in lock.channels]
    found += choose(
        online,
        maker.settings.model_copy(update={"offline_channel": "never"}),
        maker.channel,
        lambda said: _tell(5, 0, said),
        maker.credentials,
        spec.optional_channels,
    )
    missing = set(lock.channels) - {source.url for source in found}
    if missing:
        raise BuildError(texts.LOCK_OTHER_CHANNELS(channels=sorted(missing)))
    return found


# Building -------------------------------------------------------------------------------------


def _install(job: dict[str, Any]) -> dict[str, Any]:
    spec = _spec(job)
    target = SCRATCH / "pixi.lock"
    target.write_text(job["lock"], "utf-8")
    lock = read_lock(target)
    maker = _maker(job, job["cache"], _report(30, 95))
    maker.given = Path(job["private"]) if job.get("private") else None
    envs = Path(job["environments"])
    version = maker.version(spec, lock)
    if job["tags"].get(tag := spec.about.tag or "", lock.digest) != lock.digest:
        raise BuildError(texts.TAG_OF_OTHER(tag=tag, name=spec.name))
    folder = _version_folder(envs, spec.name)
    prefix = folder / version
    findings = tuple(policy.check(spec, lock, maker.settings, datetime.now(UTC).date()))
    if not (prefix / "conda-meta" / "history").is_file():
        locked = Locked(lock, tuple(Source(**source) for source in job["sources"]))
        # Shut to all others until it is whole and its modes are right: programs that are written
        # at installation come with a mode of their own, open to the group.
        open_to = os.umask(0o077)
        findings = maker.make_prefix(spec, locked, prefix, source=job["source"]).findings
        os.umask(open_to)
    size = _open(prefix, int(job["umask"], 8))
    _tell(96, 0, steps.NOW(name=spec.name, version=version))
    _point(envs / spec.name, Path(VERSIONS, spec.name, version))
    kept = _prune(folder, version, set(job["in_use"]), int(job["keep"]))
    return {
        "version": version,
        "kept": kept,
        "size": size,
        "kernels": _kernels(prefix),
        "findings": [finding.as_json() for finding in findings],
    }


def _open(prefix: Path, umask: int) -> int:
    """Let others read and run what the owner can, as far as the umask says; nobody writes.

    The folder itself comes last: until then nobody else gets in. Gives the bytes on disk; a
    file with several names counts once.
    """
    sizes: dict[int, int] = {}

    def allow(path: str) -> None:
        found = os.lstat(path)
        if not stat.S_ISLNK(found.st_mode):
            mine = found.st_mode & 0o700
            wanted = (mine | (mine & 0o500) >> 3 | (mine & 0o500) >> 6) & ~(umask | 0o022)
            if stat.S_IMODE(found.st_mode) != wanted:
                os.chmod(path, wanted)
        if not stat.S_ISDIR(found.st_mode):
            sizes[found.st_ino] = found.st_blocks * 512

    for folder, folders, files in os.walk(prefix):
        for name in (*folders, *files):
            allow(os.path.join(folder, name))
    allow(str(prefix))
    return sum(sizes.values())


def _version_folder(envs: Path, name: str) -> Path:
    """``envs/.versions/NAME``, made with the modes of the scope.

    In a team's folder the upper ones hand their group, the leads', down (setgid). That of one
    environment does not: a version belongs to the group of this process, the members.
    """
    setgid = envs.parent.exists() and bool(envs.exists() and envs.stat().st_mode & stat.S_ISGID)
    envs.mkdir(parents=True, exist_ok=True)
    for folder, mode in ((envs / VERSIONS, 0o2775), (envs / VERSIONS / name, 0o775)):
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        if setgid:
            folder.chmod(mode)
    return envs / VERSIONS / name


def _point(link: Path, target: Path) -> None:
    """Make the link lead to a version, in one step; a folder that conda made there stays."""
    if link.exists() and not link.is_symlink():
        raise BuildError(texts.NOT_BUILT_HERE(link=link))
    new = link.with_name(f".{link.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    os.replace(new, link)


def _prune(folder: Path, current: str, in_use: set[str], keep: int) -> list[str]:
    """Remove old versions beyond the newest ``keep``, none that is in use; returns what stays."""
    found = sorted(
        (path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    stay = {current, *in_use, *(path.name for path in found[:keep])}
    for path in found:
        if path.name not in stay and not _discard(path):
            stay.add(path.name)
    return sorted(path.name for path in found if path.name in stay)


def _discard(path: Path) -> bool:
    """Take a folder out of sight, then remove it. False where it is not ours to take away."""
    trash = path.with_name(f"{_TRASH}{path.name.removeprefix(_TRASH)}")
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return True
        if path != trash:
            path.rename(trash)
    except OSError:
        return False
    # What another lead built is gone from sight, and goes from the disk with their next build.
    shutil.rmtree(trash, ignore_errors=True)
    return True


def _exports(spec: EnvironmentSpec, lock: Lock) -> dict[str, str]:
    """The environment in the formats of others, as far as they can say it; the lock is beside."""
    found = {}
    for name in set(FORMATS) - {"pixi.lock"}:
        with suppress(ExportError):
            found[name] = export(spec, lock, name)
    return found


def _kernels(prefix: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted((prefix / "share/jupyter/kernels").glob("*/kernel.json"))[:20]:
        with suppress(OSError, ValueError):
            raw, _ = read(path, _MAX_KERNEL_JSON + 1)
            found[path.parent.name] = parse_json(raw, _MAX_KERNEL_JSON, values=2000)
    return found


def _image(job: dict[str, Any]) -> dict[str, Any]:
    from commons.signatures.check import Checker
    from commons.store import Store
    from environments.build import Builder, Places
    from environments.provenance import Provenance

    settings = Environments.model_validate(job["settings"])
    places = Places(Path(sys.argv[1], "environments"), Path(job["cache"]).parent)
    checker = Checker(Signatures.model_validate(job["signatures"]), places.data)
    stated = Provenance.of(checker, job["asked_by"])
    builder = Builder(settings, places, Store(), _report(0, 99), provenance=stated)
    entry = builder.build(job["name"]).entry
    return {"version": entry.version, "lock_digest": entry.lock_digest}


def _rescan(job: dict[str, Any]) -> dict[str, Any]:
    """Look for known holes in all versions, as ``labcommons env vulnerable --scan`` does."""
    from commons.store import Store
    from environments.rescan import rescan

    settings = Environments.model_validate(job["settings"]).scan
    return dict(rescan(Store(), settings, Path(job["cache"]).parent))


def _tidy_up(job: dict[str, Any]) -> dict[str, Any]:
    """Remove what nobody needs, as ``labcommons disk prune`` does."""
    from commons.store import Store
    from commons.store.models import utcnow
    from environments.build import Places
    from environments.image import Images
    from environments.prune import everything

    # The administrator's own locks, whose folder is not here.
    for number, lock in enumerate(job["locks"]):
        path = SCRATCH / "environments" / str(number) / "pixi.lock"
        path.parent.mkdir(parents=True)
        path.write_text(lock, "utf-8")
    settings = Environments.model_validate(job["settings"])
    places = Places(SCRATCH / "environments", Path(job["cache"]).parent)
    removed = everything(Store(), Images(), places, settings, job["asked_for"], utcnow())
    return {"removed": [one.as_json() for one in removed]}


# Deciding -------------------------------------------------------------------------------------


def _decide(job: dict[str, Any]) -> dict[str, Any]:
    prefix = Path(job["environments"], VERSIONS, job["name"], job["version"])
    stamp = read_stamp(prefix)
    if stamp is None:
        raise BuildError(texts.NO_STAMP(prefix=prefix))
    _tell(50, 0, steps.NOTING(version=job["version"]))
    write_stamp(prefix, replace(stamp, **job["notes"]))
    return {}


def _look(job: dict[str, Any]) -> dict[str, Any]:
    return {"environments": look(Path(job["environments"]), job["known"])}


# Deleting -------------------------------------------------------------------------------------


def _delete(job: dict[str, Any]) -> dict[str, Any]:
    envs, name = Path(job["environments"]), job["name"]
    link, folder = envs / name, envs / VERSIONS / name
    _tell(20, 1, steps.REMOVING(name=name))
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        _remove(link)
    if folder.exists():
        left = [path for path in list(folder.iterdir()) if not _discard(path)]
        if left:
            raise BuildError(texts.MAY_NOT_REMOVE(file=left[0]))
        with suppress(OSError):  # another lead's versions are still on the disk
            folder.rmdir()
    return {}


def _remove(path: Path) -> None:
    trash = path.with_name(f".{path.name}.{os.getpid()}{_TRASH}")
    path.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)


if __name__ == "__main__":
    serve(main)

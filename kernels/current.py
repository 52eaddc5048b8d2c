"""Which environment this is, in which version: for a paper, a report, or a bug.

In a notebook::

    import labcommons_environment
    print(labcommons_environment.current()["citation"])

and in a terminal ``labcommons env current``. Standard library only and one file: it is imported
by whatever Python an environment has (3.8 and newer), under the name above.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import site
import sys
from typing import Any, Dict, List, Optional  # noqa: UP035  (Python 3.8)
from urllib.parse import unquote

_MAX_BYTES = 64 * 1024
_MAX_BILL = 64 * 1024 * 1024
_FACTS = "conda-meta/labcommons/version.json"
_BILL = "conda-meta/labcommons/sbom.cdx.json"
_PACKAGE = re.compile(r"pkg:(conda|pypi)/([^@?]+)@([^?#]+)")
_FOLDER = re.compile(r"(.+?)-([^-]+)\.(?:dist|egg)-info")
_PYTHON = re.compile(r"python-(\d+\.\d+(?:\.[^-]+)?)-[^-]+\.json")
_SCOPES = (
    (re.compile(r"/opt/conda/envs/([^/]+)"), "image"),
    (re.compile(r"/opt/labcommons/shared/envs/([^/]+)"), "shared"),
    (re.compile(r"/opt/labcommons/teams/(?P<owner>[^/]+)/envs/([^/]+)"), "team-"),
    (re.compile(r"/opt/labcommons/courses/(?P<owner>[^/]+)/envs/([^/]+)"), "course-"),
    (re.compile(r".*/\.conda/envs/([^/]+)"), "personal"),
)


def current(prefix: Optional[str] = None) -> Dict[str, Any]:  # noqa: UP006, UP045
    """The environment of this interpreter (or of ``prefix``).

    Keys: ``name``, ``source`` (image, shared, team-NAME, course-NAME, personal), ``version``,
    ``tag``, ``lock_digest`` (SHA-256 over all packages' URLs and hashes), ``python``, ``created``
    (ISO 8601), ``prefix``, ``deprecated`` (since which day), ``withdrawn`` (why), and ``citation``,
    a sentence to quote. What is not known is None. ``changes`` is what was installed and removed
    since it was built (``changes``), and ``mixed_in`` where this Python takes packages of the home
    as well (~/.local); then the digest is not the whole truth, and the citation says so.
    """
    prefix = os.path.abspath(prefix or sys.prefix)
    facts = _facts(prefix)
    name, source = place(prefix)
    found: Dict[str, Any] = {  # noqa: UP006
        "name": _text(facts, "name") or name,
        "source": source or _text(facts, "source"),
        "version": _text(facts, "version") or _version_of_server(name, source),
        "tag": _text(facts, "tag"),
        "lock_digest": _text(facts, "lock_digest"),
        "python": _text(facts, "python") or _python(prefix),
        "created": _text(facts, "created"),
        "prefix": prefix,
        "deprecated": _text(facts, "deprecated"),
        "withdrawn": _text(facts, "withdrawn"),
        "changes": changes(prefix) if facts else {},
        "mixed_in": _mixed_in(prefix),
    }
    found["citation"] = _citation(found)
    return found


def _citation(found: Dict[str, Any]) -> str:  # noqa: UP006
    parts = []
    if found["version"]:
        tag = " ({})".format(found["tag"]) if found["tag"] else ""
        parts.append("version {}{}".format(found["version"], tag))
    if found["python"]:
        parts.append("Python {}".format(found["python"]))
    if found["lock_digest"]:
        parts.append("packages sha256:{}".format(found["lock_digest"]))
    about = ", ".join(parts) or "not built by LabCommons: its packages are not recorded"
    since = told(found["changes"])
    if since:
        about += "; changed since by hand: " + since
    if found["mixed_in"]:
        about += "; with packages of {}".format(found["mixed_in"])
    return 'Computed in the conda environment "{}" ({}).'.format(found["name"], about)


def changes(prefix: str) -> Dict[str, Any]:  # noqa: UP006
    """What is other in an environment than what it was built of: what pip or conda did since.

    ``{"conda": {name: [then, now]}, "pip": {name: [then, now]}}``, each None where it was not or
    is not there; an empty dictionary where nothing differs or nothing is recorded.
    """
    built = _bill(prefix)
    if built is None:
        return {}
    conda, distributions = _installed(prefix)
    found = {"conda": _difference(built["conda"], conda), "pip": {}}
    # What conda changed brought other distributions with it: said once, by conda's name.
    for name, pair in _difference(built["pypi"], distributions).items():
        if _same(name) not in {_same(each) for each in found["conda"]}:
            found["pip"][name] = pair
    return {kind: pairs for kind, pairs in found.items() if pairs}


def told(differences: Dict[str, Any]) -> str:  # noqa: UP006
    """Changes in a few words: what was added, what has another version, what is gone."""
    words = []
    for kind in ("conda", "pip"):
        for name, (then, now) in sorted(differences.get(kind, {}).items()):
            if now is None:
                words.append(f"without {name}")
            else:
                was = f" (was {then})" if then else ""
                words.append(f"{name} {now}{was}")
    more = len(words) - 20
    return ", ".join(words[:20]) + (f", and {more} more" if more > 0 else "")


def _same(name: str) -> str:
    """A name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _difference(then: Dict[str, str], now: Dict[str, str]) -> Dict[str, Any]:  # noqa: UP006
    return {
        name: [then.get(name), now.get(name)]
        for name in {**then, **now}
        if then.get(name) != now.get(name)
    }


def _bill(prefix: str) -> Any:
    """Names and versions of what it was built of, by its bill of materials; None without one."""
    try:
        with open(os.path.join(prefix, _BILL), "rb") as file:
            components = json.loads(file.read(_MAX_BILL).decode("utf-8"))["components"]
        found: Dict[str, Dict[str, str]] = {"conda": {}, "pypi": {}}  # noqa: UP006
        for component in components:
            match = _PACKAGE.match(component.get("purl") or "")
            if match:
                name, version = unquote(match.group(2)), unquote(match.group(3))
                found[match.group(1)][name if match.group(1) == "conda" else _same(name)] = version
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None
    return found


def _installed(prefix: str) -> Any:
    """Versions by name of what conda's records say, and of Python's distributions."""
    conda = {}
    for file in _names(os.path.join(prefix, "conda-meta")):
        parts = file[:-5].rsplit("-", 2) if file.endswith(".json") else ()
        if len(parts) == 3:
            conda[parts[0]] = parts[1]
    return conda, {name: version for name, (version, _) in distributions_of(prefix).items()}


def distributions_of(prefix: str) -> Dict[str, Any]:  # noqa: UP006
    """Version and folder of each of Python's distributions in a prefix, by name as PyPI has it."""
    found = {}
    lib = os.path.join(prefix, "lib")
    for python in _names(lib):
        packages = os.path.join(lib, python, "site-packages")
        for folder in _names(packages) if python.startswith("python3") else ():
            match = _FOLDER.fullmatch(folder)
            if match:
                path = os.path.join(packages, folder)
                name, version = _described(path) or match.groups()
                found[_same(name)] = (version, path)
    return found


def _described(folder: str) -> Any:
    """Name and version by a distribution's own words."""
    found = {}
    for file in ("METADATA", "PKG-INFO"):
        try:
            with open(os.path.join(folder, file), encoding="utf-8", errors="replace") as text:
                for line in text:
                    key, colon, value = line.partition(":")
                    if not colon:
                        break
                    if key in ("Name", "Version"):
                        found[key] = value.strip()
                    if len(found) == 2:
                        return found["Name"], found["Version"]
        except OSError:
            continue
    return None


def _names(folder: str) -> List[str]:  # noqa: UP006
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _mixed_in(prefix: str) -> Optional[str]:  # noqa: UP045
    """The home's own folder of packages where this Python, asked about itself, takes from it."""
    if prefix != os.path.abspath(sys.prefix):
        return None
    folder = site.getusersitepackages() if site.ENABLE_USER_SITE else ""
    return folder if folder in sys.path and _names(folder) else None


def _facts(prefix: str) -> Dict[str, Any]:  # noqa: UP006
    try:
        with open(os.path.join(prefix, _FACTS), "rb") as file:
            found = json.loads(file.read(_MAX_BYTES).decode("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(facts: Dict[str, Any], key: str) -> Optional[str]:  # noqa: UP006, UP045
    value = facts.get(key)
    if not isinstance(value, str) or not value.isprintable() or len(value) > 200:
        return None
    return value.replace("sha256:", "") if key == "lock_digest" else value


def place(prefix: str) -> Any:
    """Name and source by the path; a version's own folder counts as its environment's."""
    path = re.sub(r"/envs/\.versions/([^/]+)/[^/]+$", r"/envs/\1", prefix)
    for pattern, source in _SCOPES:
        match = pattern.fullmatch(path)
        if match:
            owner = match.groupdict().get("owner") or ""
            return match.groups()[-1], source + owner
    return os.path.basename(prefix), None


def _version_of_server(name: str, source: Optional[str]) -> Optional[str]:  # noqa: UP045
    """An image environment's version is also what the server was started with."""
    started, _, version = os.environ.get("LABCOMMONS_ENVIRONMENT", "").partition(":")
    return version or None if source == "image" and started == name else None


def _python(prefix: str) -> Optional[str]:  # noqa: UP045
    names = _names(os.path.join(prefix, "conda-meta"))
    return next((match[1] for match in map(_PYTHON.fullmatch, names) if match), None)


def main(arguments: Optional[List[str]] = None) -> int:  # noqa: UP006, UP045
    """``labcommons env current``."""
    parser = argparse.ArgumentParser(
        prog="labcommons",
        description="About the environment that is active here. Kernels: labcommons kernels --help",
        epilog="examples:\n  labcommons env current\n  labcommons env current --json\n"
        "  labcommons kernels list",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    groups = parser.add_subparsers(dest="group", required=True, metavar="env")
    env = groups.add_parser("env", help="the environment of this terminal or kernel")
    commands = env.add_subparsers(dest="command", required=True, metavar="current")
    one = commands.add_parser(
        "current",
        help="name, version and digest of the active environment",
        epilog="examples:\n  labcommons env current --json\n  labcommons env current --cite",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    one.add_argument("--json", action="store_true", help="print JSON")
    one.add_argument("--cite", action="store_true", help="print only the sentence to quote")
    chosen = parser.parse_args(arguments)
    prefix = os.environ.get("CONDA_PREFIX") or _started_with()
    if not prefix:
        print("No environment is active. Activate one: conda activate NAME", file=sys.stderr)
        return 1
    found = current(prefix)
    if chosen.json:
        print(json.dumps(found, indent=2))
    elif chosen.cite:
        print(found["citation"])
    else:
        for key in (
            "name",
            "source",
            "version",
            "tag",
            "lock_digest",
            "python",
            "prefix",
            "deprecated",
            "withdrawn",
        ):
            if found[key]:
                print("{:12} {}".format(key.replace("_", " "), found[key]))
        if found["changes"]:
            print("{:12} {}".format("changed", told(found["changes"])))
            print("{:12} labcommons env keep".format("to keep it"))
        print("\n{}".format(found["citation"]))
    return 0


def _started_with() -> str:
    """The environment that the server was started with, where none was activated."""
    name = os.environ.get("LABCOMMONS_ENVIRONMENT", "").partition(":")[0]
    return "/opt/conda/envs/" + name if name else ""


if __name__ == "__main__":
    sys.exit(main())

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
import sys
from typing import Any, Dict, List, Optional  # noqa: UP035  (Python 3.8)

_MAX_BYTES = 64 * 1024
_FACTS = "conda-meta/labcommons/version.json"
_PYTHON = re.compile(r"python-(\d+\.\d+(?:\.[^-]+)?)-[^-]+\.json")
_TIERS = (
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
    a sentence to quote. What is not known is None.
    """
    prefix = os.path.abspath(prefix or sys.prefix)
    facts = _facts(prefix)
    name, source = _place(prefix)
    found = {
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
    return 'Computed in the conda environment "{}" ({}).'.format(found["name"], about)


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


def _place(prefix: str) -> Any:
    """Name and source by the path; a version's own folder counts as its environment's."""
    path = re.sub(r"/envs/\.versions/([^/]+)/[^/]+$", r"/envs/\1", prefix)
    for pattern, source in _TIERS:
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
    try:
        names = os.listdir(os.path.join(prefix, "conda-meta"))
    except OSError:
        return None
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
        print("\n{}".format(found["citation"]))
    return 0


def _started_with() -> str:
    """The environment that the server was started with, where none was activated."""
    name = os.environ.get("LABCOMMONS_ENVIRONMENT", "").partition(":")[0]
    return "/opt/conda/envs/" + name if name else ""


if __name__ == "__main__":
    sys.exit(main())

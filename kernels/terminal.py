"""``conda activate`` in a terminal, for every environment that one sees, without conda.

The shell function ``conda`` (config/images/server/conda.sh) asks this module, which answers
``activate`` and ``deactivate`` with words for the shell to carry out, lists environments and
packages, and hands everything else to a real conda or mamba where the active environment has
one. Environments are given by name, as ``team-vision/NAME`` where names are the same, or by path.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernels.activation import UNDO, activation_scripts, static_variables, without_active
from kernels.sources import DEFAULT_SOURCES, Source, fill, list_folder, matching, roots

# Nearest first: of two environments with one name, a person's own is meant.
_ORDER = ("personal", "team-", "course-", "shared", "image")
_PROGRAMS = ("conda", "mamba", "micromamba")
_USAGE = """usage: conda COMMAND

  activate NAME      work in an environment: its Python, programs and variables
  deactivate         leave it
  env list           the environments that you can use
  list [-n NAME]     the packages of an environment
  info               what is active

Other commands (install, create, remove …) are those of a real conda or mamba, which the active
environment has when “conda” or “mamba” is among its packages. To have another environment, build
one on the page “Environments” of this site, or add conda to your own environment.yml.
"""


@dataclass(frozen=True)
class Found:
    """An environment: where it belongs, what it is called, and its folder."""

    source: str
    name: str
    prefix: str


class Refused(Exception):
    """What was asked cannot be done; the message says why and what to do."""


def environments(sources: Sequence[Source] = DEFAULT_SOURCES) -> list[Found]:
    """All environments that one may enter, nearest first."""
    found: dict[str, Found] = {}
    for source in sorted(sources, key=_distance):
        for root in [] if source.pattern.startswith("@") else roots(source):
            try:
                names = matching(list_folder(root.folder), root.leaf)
            except OSError:
                continue
            for name in names:
                prefix = f"{root.folder}/{name}"
                if os.path.exists(f"{prefix}/conda-meta/history"):
                    one = Found(fill(source.id, root.captures), name, prefix)
                    found.setdefault(prefix, one)
    return list(found.values())


def _distance(source: Source) -> int:
    return next((n for n, start in enumerate(_ORDER) if source.id.startswith(start)), len(_ORDER))


def find(word: str, known: list[Found]) -> Found:
    """The environment that somebody means. Raises Refused."""
    if word.startswith(("/", "~", ".")):
        prefix = os.path.abspath(os.path.expanduser(word))
        if os.path.exists(f"{prefix}/conda-meta/history"):
            return Found("path", os.path.basename(prefix), prefix)
        raise Refused(f"{word} is no conda environment (it has no conda-meta/history)")
    source, _, name = word.rpartition("/")
    for one in known:
        if one.name == name and source in ("", one.source):
            return one
    names = ", ".join(dict.fromkeys(one.name for one in known)) or "none"
    raise Refused(f"there is no environment “{word}” here. There are: {names}")


def activate(found: Found, base: Mapping[str, str]) -> str:
    """Shell words that activate an environment, after leaving the one that is active."""
    before = without_active(base)
    after = static_variables(found.prefix, before)
    after["CONDA_DEFAULT_ENV"] = found.name
    after["CONDA_PROMPT_MODIFIER"] = f"({found.name}) "
    lines = []
    if base.get("CONDA_PREFIX"):
        lines += _leave(base)
    undo = []
    for name in sorted({*before, *after}):
        if name in ("PATH", UNDO) or before.get(name) == after.get(name):
            continue
        undo.append(_assign(name, before.get(name)))
        lines.append(_assign(name, after.get(name)))
    lines.append(_assign("PATH", after["PATH"]))
    lines.append(_assign(UNDO, "\n".join(undo)))
    lines += [f". {shlex.quote(str(script))}" for script in activation_scripts(found.prefix)]
    lines.append("hash -r 2>/dev/null || true")
    return "\n".join(lines)


def deactivate(base: Mapping[str, str]) -> str:
    """Shell words that leave the active environment."""
    if not base.get("CONDA_PREFIX"):
        return ""
    return "\n".join([*_leave(base), "hash -r 2>/dev/null || true"])


def _leave(base: Mapping[str, str]) -> list[str]:
    prefix = base["CONDA_PREFIX"]
    folder = Path(prefix, "etc/conda/deactivate.d")
    scripts = sorted(folder.glob("*.sh"), reverse=True) if folder.is_dir() else []
    lines = [f". {shlex.quote(str(script))}" for script in scripts]
    # What activation changed and the person has not changed since is as it was before. The words
    # are ours: they are made above, every value quoted.
    lines.append(f'eval "${{{UNDO}:-}}"')
    names = (UNDO, "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "CONDA_SHLVL", "CONDA_PROMPT_MODIFIER")
    lines.append(f"unset {' '.join(names)}")
    lines.append(_assign("PATH", without_active(base).get("PATH")))
    return lines


def _assign(name: str, value: str | None) -> str:
    return f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"


def show_environments(as_json: bool) -> None:
    """``conda env list``."""
    known, active = environments(), os.environ.get("CONDA_PREFIX")
    if as_json:
        print(json.dumps({"envs": [one.prefix for one in known]}, indent=2))
        return
    print("# conda environments:\n#")
    width = max([20, *(len(f"{one.source}/{one.name}") for one in known)])
    for one in known:
        mark = "*" if one.prefix == active else " "
        print(f"{one.source + '/' + one.name:{width}} {mark} {one.prefix}")
    if not known:
        print("# none yet: build one on the page “Environments” of this site")


def show_packages(prefix: str, as_json: bool) -> None:
    """``conda list``."""
    rows = []
    for path in sorted(Path(prefix, "conda-meta").glob("*.json")):
        name, version, build = path.stem.rsplit("-", 2)
        rows.append({"name": name, "version": version, "build_string": build})
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    print(f"# packages in environment at {prefix}:\n#")
    for row in rows:
        print(f"{row['name']:30} {row['version']:18} {row['build_string']}")


def main(words: list[str]) -> int:
    """What the shell function asks."""
    program, *words = words
    try:
        return _answer(program, words)
    except Refused as error:
        print(f"conda: {error}", file=sys.stderr)
        return 1


def _answer(program: str, words: list[str]) -> int:
    as_json = "--json" in words
    match [word for word in words if word != "--json"]:
        case ["activate", name] | ["activate", "-n" | "--name", name]:
            print(activate(find(name, environments()), os.environ))
        case ["activate"]:
            started = os.environ.get("LABCOMMONS_ENVIRONMENT", "").partition(":")[0]
            print(activate(find(f"image/{started}", environments()), os.environ))
        case ["deactivate"]:
            print(deactivate(os.environ))
        case ["env", "list"] | ["info", "--envs" | "-e"]:
            show_environments(as_json)
        case ["list"]:
            prefix = os.environ.get("CONDA_PREFIX")
            if not prefix:
                raise Refused("no environment is active; name one: conda list -n NAME")
            show_packages(prefix, as_json)
        case ["list", "-n" | "--name" | "-p" | "--prefix", name]:
            show_packages(find(name, environments()).prefix, as_json)
        case ["info"]:
            active = os.environ.get("CONDA_PREFIX") or "none"
            print(f"active environment: {active}")
            show_environments(False)
        case [] | ["--help" | "-h" | "help"]:
            print(_USAGE)
        case rest:
            return _real(program, rest if not as_json else words)
    return 0


def _real(program: str, words: list[str]) -> int:
    """Hand over to a real one; does not come back."""
    for name in dict.fromkeys((program, *_PROGRAMS)):
        real = shutil.which(name)
        if real:
            os.execv(real, [real, *words])  # noqa: S606
    raise Refused(
        f"“{program} {' '.join(words)}” needs a real conda or mamba, and the active environment "
        "has none. Build an environment on the page “Environments” of this site instead, or add "
        "“conda” to your own environment.yml. “conda --help” says what works here."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

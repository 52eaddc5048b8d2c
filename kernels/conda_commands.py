"""The commands of conda and mamba that need none: lists, exports, runs, and builds by the site.

``kernels.terminal`` has activation and decides what is asked; the rest of conda's commands go to a
real one, where the active environment has it.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kernels import files
from kernels.activation import Activator, without_active
from kernels.console import Console
from kernels.current import distributions_of
from kernels.hostile import parse_json
from kernels.messages import ToldError, say
from kernels.own_environments import derive, wait_for
from kernels.packages import environment_of, is_own, make, offer
from kernels.words import options

ROOT = "/opt/conda"
_MAX_RECORD, _MAX_SPEC = 16 * 2**20, 2**20
# Of an environment's packages in conda's own words, what a list has.
_LISTED = ("base_url", "build_number", "build_string", "channel", "dist_name", "name", "platform",
           "version")  # fmt: skip
_VALUES = "-n --name -p --prefix -c --channel -f --file --cwd --solver --subdir --platform --clone"
_WITH_VALUE = frozenset(_VALUES.split())


class Refused(ToldError):
    """What was asked cannot be done; ``message`` says why and what to do."""


@dataclass
class Line:
    """A command line, read: what is no option, options without and with values."""

    words: list[str] = field(default_factory=list)
    flags: set[str] = field(default_factory=set)
    values: dict[str, list[str]] = field(default_factory=dict)

    def value(self, *names: str) -> str:
        """The last value of an option; empty without it."""
        return next((self.values[name][-1] for name in names if name in self.values), "")

    @property
    def target(self) -> str:
        """The environment that is named."""
        return self.value("-n", "--name", "-p", "--prefix")

    @property
    def channels(self) -> list[str]:
        """The channels that are named."""
        return [*self.values.get("-c", ()), *self.values.get("--channel", ())]

    @property
    def as_json(self) -> bool:
        """Whether JSON is wanted."""
        return "--json" in self.flags


def read(words: Sequence[str]) -> Line:
    """Read a command line as conda does."""
    line = Line()
    for option, value in options(words, _WITH_VALUE):
        if not option:
            line.words.append(value)
        elif option in _WITH_VALUE:
            line.values.setdefault(option, []).append(value)
        else:
            line.flags.add(option)
    return line


# Lists --------------------------------------------------------------------------------------------


def show_environments(prefixes: Mapping[str, str], as_json: bool) -> None:
    """``conda env list``; ``prefixes`` by what they are called."""
    if as_json:
        print(json.dumps({"envs": list(prefixes.values())}, indent=2))
        return
    active = os.environ.get("CONDA_PREFIX")
    print("# conda environments:\n#")
    width = max([20, *map(len, prefixes)])
    for name, prefix in prefixes.items():
        print(f"{name:{width}} {'*' if prefix == active else ' '} {prefix}")
    if not prefixes:
        print("# none yet: build one on the page “Environments” of this site")


def show_info(prefixes: Mapping[str, str], folders: Sequence[str], as_json: bool) -> None:
    """``conda info``: what is active, where environments and packages are."""
    active = os.environ.get("CONDA_PREFIX") or None
    config = condarc()
    found = {
        "active_prefix": active,
        "active_prefix_name": os.environ.get("CONDA_DEFAULT_ENV") or None,
        "channels": config.get("channels", []),
        "conda_prefix": ROOT,
        "conda_shlvl": int(os.environ.get("CONDA_SHLVL") or 0),
        "conda_version": "0 (LabCommons)",
        "default_prefix": active or ROOT,
        "envs": list(prefixes.values()),
        "envs_dirs": list(folders),
        "pkgs_dirs": config.get("pkgs_dirs", []),
        "platform": "linux-64" if os.uname().machine == "x86_64" else f"linux-{os.uname().machine}",
        "root_prefix": ROOT,
        "root_writable": False,
        "sys.version": sys.version,
    }
    if as_json:
        print(json.dumps(found, indent=2))
        return
    print(f"active environment: {active or 'none'}")
    show_environments(prefixes, False)


def condarc() -> dict[str, Any]:
    """The site's settings; each line of the file that we write is a key and JSON."""
    found = {}
    try:
        for text in Path("/etc/conda/condarc").read_text("utf-8").splitlines():
            key, colon, value = text.partition(": ")
            if colon:
                found[key] = json.loads(value)
    except (OSError, ValueError):
        return {}
    return found


def packages(prefix: str) -> list[dict[str, Any]]:
    """An environment's packages as ``conda list --json`` has them, pip's among them."""
    rows = []
    for record in _records(prefix):
        url = str(record.get("url") or "")
        base = url.rpartition("/")[0].rpartition("/")[0]
        name, version, build = (str(record.get(key)) for key in ("name", "version", "build"))
        rows.append(
            {
                "base_url": base,
                "build_number": record.get("build_number", 0),
                "build_string": build,
                "channel": base.rpartition("/")[2],
                "dist_name": f"{name}-{version}-{build}",
                "name": name,
                "platform": record.get("subdir", ""),
                "version": version,
            }
        )
    for name, version in pip_packages(prefix).items():
        rows.append(
            dict.fromkeys(_LISTED, "")
            | {
                "build_number": 0,
                "build_string": "pypi_0",
                "channel": "pypi",
                "dist_name": f"{name}-{version}-pypi_0",
                "name": name,
                "platform": "pypi",
                "version": version,
            }
        )
    return sorted(rows, key=lambda row: str(row["name"]))


def _records(prefix: str) -> Iterator[dict[str, Any]]:
    for path in sorted(Path(prefix, "conda-meta").glob("*.json")):
        try:
            raw, _ = files.read(path, _MAX_RECORD + 1)
            record = parse_json(raw, _MAX_RECORD, values=2_000_000)
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("name"):
            yield record


def pip_packages(prefix: str) -> dict[str, str]:
    """What pip installed, by name: the distributions that no conda package brought."""
    owned = {
        folder.group(1)
        for record in _records(prefix)
        for file in record.get("files") or ()
        if (folder := re.match(r"(.*\.(?:dist|egg)-info)/", str(file)))
    }
    return {
        name: version
        for name, (version, folder) in distributions_of(prefix).items()
        if os.path.relpath(folder, prefix) not in owned
    }


def show_packages(prefix: str, line: Line) -> None:
    """``conda list [REGEX]``, ``--export``, ``--explicit``, ``--json``."""
    if "--explicit" in line.flags:
        print("@EXPLICIT")
        for record in _records(prefix):
            print(record.get("url") or f"# {record['name']}: its address is not known")
        return
    wanted = line.words[1] if len(line.words) > 1 else ""
    try:
        rows = [row for row in packages(prefix) if re.search(wanted, row["name"])]
    except re.error:
        rows = [row for row in packages(prefix) if wanted in row["name"]]
    if line.as_json:
        print(json.dumps(rows, indent=2))
    elif line.flags & {"--export", "-e"}:
        for row in rows:
            print(f"{row['name']}={row['version']}={row['build_string']}")
    else:
        print(f"# packages in environment at {prefix}:\n#")
        print(f"# {'Name':28} {'Version':18} {'Build':22} Channel")
        for row in rows:
            print(f"{row['name']:30} {row['version']:18} {row['build_string']:22} {row['channel']}")


def export(prefix: str, line: Line) -> None:
    """``conda env export``: an environment.yml; JSON is YAML, too, where that is wanted."""
    name = environment_of(prefix)[1]
    kept = Path(prefix, "conda-meta/labcommons/environment.yml")
    if "--from-history" in line.flags and kept.is_file() and not line.as_json:
        print(kept.read_text("utf-8")[:_MAX_SPEC], end="")
        return
    rows = packages(prefix)
    conda = [row for row in rows if row["channel"] != "pypi"]
    pip = [f"{row['name']}=={row['version']}" for row in rows if row["channel"] == "pypi"]
    bare = bool(line.flags & {"--no-builds", "--no-build"})
    dependencies: list[Any] = [
        f"{row['name']}={row['version']}" + ("" if bare else f"={row['build_string']}")
        for row in conda
    ]
    channels = sorted({str(row["channel"]) for row in conda} - {""})
    if line.as_json:
        dependencies += [{"pip": pip}] if pip else []
        text = json.dumps(
            {"name": name, "channels": channels, "dependencies": dependencies, "prefix": prefix},
            indent=2,
        )
    else:
        lines = [f"name: {name}", "channels:", *(f"  - {channel}" for channel in channels)]
        lines += ["dependencies:", *(f"  - {item}" for item in dependencies)]
        lines += ["  - pip:", *(f"      - {item}" for item in pip)] if pip else []
        text = "\n".join(lines)
    if target := line.value("-f", "--file"):
        Path(target).write_text(f"{text}\n", "utf-8")
    else:
        print(text)


# Running and building -----------------------------------------------------------------------------


def run(prefix: str, name: str, command: Sequence[str]) -> int:
    """``conda run``: become a program in an environment; the status of one that cannot start."""
    variables = Activator().activate(prefix, without_active(os.environ), name=name)
    try:
        os.execvpe(command[0], list(command), variables)  # noqa: S606
    except OSError as error:
        print(f"conda run: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


def install(prefix: str, line: Line, remove: bool = False) -> int:
    """``conda install`` and ``remove``: of one's own a new version in place, else an offer."""
    specs = line.words[1:]
    for path in line.values.get("--file", []) + line.values.get("-f", []):
        specs += _listed(_text(path))
    if not specs:
        raise Refused(say("name_packages"))
    return _change(prefix, line, () if remove else specs, (), specs if remove else ())


def update(prefix: str, line: Line) -> int:
    """``conda env update -f FILE``: what the file lists is added, as conda does without --prune."""
    if "--prune" in line.flags:
        raise Refused(say("no_prune"))
    path = line.value("-f", "--file") or "environment.yml"
    conda, pip = _dependencies(_text(path))
    if not conda and not pip:
        raise Refused(say("file_lists_nothing", path=path))
    return _change(prefix, line, conda, pip)


def _dependencies(text: str) -> tuple[list[str], list[str]]:
    """What an environment.yml lists for conda and for pip; what is none has neither."""
    import yaml  # type: ignore[import-untyped]

    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return [], []
    listed = found.get("dependencies") if isinstance(found, dict) else None
    items = listed if isinstance(listed, list) else []
    sections = [item.get("pip") for item in items if isinstance(item, dict)]
    of_pip = [item for section in sections if isinstance(section, list) for item in section]
    return (
        [item for item in items if isinstance(item, str) and item != "pip"],
        [item for item in of_pip if isinstance(item, str)],
    )


def _change(
    prefix: str, line: Line, conda: Sequence[str], pip: Sequence[str], removed: Sequence[str] = ()
) -> int:
    """A new version of one's own environment, or an offer of a copy."""
    channels = line.channels
    if not is_own(prefix):
        made = offer(prefix, add=conda, pip=pip, remove=removed, channels=channels)
        said = say("read_only_remove", **made.told) if removed else None
        make(made, said or say("read_only_add", **made.told))
        return 1
    if environment_of(prefix)[0] != "personal":
        raise Refused(say("not_built_here", path=prefix))
    console = Console()
    wanted = offer(prefix, add=conda, pip=pip, remove=removed, channels=channels)
    return wait_for(console, derive(console, wanted), line.as_json)


def _text(path: str) -> str:
    """A file's text in any marked encoding of Unicode; what is none the console refuses."""
    raw = files.read_named(path, _MAX_SPEC)
    marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return raw.decode("utf-16" if marked else "utf-8-sig", "replace")


def _listed(text: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("@")]


def create(line: Line, words: Sequence[str]) -> int:
    """``conda create -n NAME PACKAGES…`` and ``conda env create -f FILE``: built by the site."""
    name = line.value("-n", "--name")
    path = line.value("-f", "--file")
    if words[0] == "env" or (path and path.endswith((".yml", ".yaml"))):
        path = path or (line.words[2] if len(line.words) > 2 else "environment.yml")
        spec = _text(path)
        found = re.search(r"^name[ \t]*:[ \t]*[\"']?([A-Za-z0-9._-]+)", spec, re.MULTILINE)
        name = name or (found[1] if found else "")
    elif path and "@EXPLICIT" in (spec := _text(path)).split():
        pass  # exactly these
    else:
        packages_of = line.words[1:] + (_listed(_text(path)) if path else [])
        if not packages_of:
            raise Refused(say("create_what", name=name or "NAME"))
        # Without a kernel it would be in no launcher.
        names = [item.partition("::")[2] or item for item in packages_of]
        if any(re.match(r"python\b", item) for item in names) and not any(
            item.startswith("ipykernel") for item in names
        ):
            packages_of = [*packages_of, "ipykernel"]
        channels = line.channels or condarc().get("channels") or ["conda-forge"]
        spec = "\n".join(
            (
                f"name: {json.dumps(name)}",
                f"channels: {json.dumps(channels)}",
                f"dependencies: {json.dumps(packages_of)}",
                "",
            )
        )
    if not name:
        raise Refused(say("name_wanted"))
    console = Console()
    return wait_for(console, console.create(name, spec), line.as_json)


def clone(prefix: str, line: Line) -> int:
    """``conda create --clone OTHER -n NAME``: one's own copy of an environment."""
    if not (name := line.value("-n", "--name")):
        raise Refused(say("name_wanted"))
    if not environment_of(prefix)[0]:
        raise Refused(say("not_built_here", path=prefix))
    console = Console()
    return wait_for(console, derive(console, offer(prefix), name), line.as_json)


def remove_environment(line: Line) -> int:
    """``conda env remove -n NAME``: of one's own, after a question."""
    name = line.target.rstrip("/").rpartition("/")[2]
    if not name:
        raise Refused(say("name_wanted"))
    if not line.flags & {"-y", "--yes"}:
        if not sys.stdin.isatty():
            raise Refused(say("say_yes", command=f"conda env remove -n {name} --yes"))
        print(f"{name}? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    console = Console()
    return wait_for(console, console.delete(name), line.as_json)

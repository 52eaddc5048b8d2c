"""``conda activate`` in a terminal, for every environment that one sees, without conda.

The shell function ``conda`` (config/images/server/conda.sh) asks this module, which answers
``activate`` and ``deactivate`` with words for the shell to carry out; the program ``conda``, of
scripts and of shells without that function, asks it, too. The other commands are in
``kernels.conda_commands``, and what neither knows is handed to a real conda or mamba where the
active environment has one. Environments are those of the server's kernel list, by name, as
``team-vision/NAME`` where names are the same, as the launcher calls them, or by path.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kernels import beside
from kernels import conda_commands as commands
from kernels.activation import (
    UNDO,
    ActivationError,
    activation_scripts,
    static_variables,
    without_active,
)
from kernels.cli import manager
from kernels.conda_commands import Line, Refused
from kernels.console import ConsoleError
from kernels.manager import CondaKernelSpecManager
from kernels.messages import Message, persons_language, say, why
from kernels.packages import started
from kernels.prefix import SERVERS_PROGRAM, State

# Nearest first: of two environments with one name, a person's own is meant.
_ORDER = ("personal", "team-", "course-", "shared", "image")
# The states in which an environment's programs are there, even if none is a kernel.
_ENTERED = (State.HEALTHY, State.NO_KERNEL, State.BROKEN)
_PROGRAMS = ("conda", "mamba", "micromamba")
_HOOK = "/opt/labcommons/etc/conda.sh"
_USAGE = """usage: conda COMMAND

  activate NAME          work in an environment: its Python, programs and variables
  deactivate             leave it
  run -n NAME COMMAND    run a program in it: in scripts, make, cron
  env list               the environments that you can use
  list [-n NAME]         the packages of an environment
  env export [-n NAME]   its environment.yml
  info                   what is active
  install, remove PACKAGE…           a new version of your own environment, built by the site
  create -n NAME PACKAGE…            a new one of your own
  env create -f environment.yml      the same, from a file
  env update -f environment.yml      what a file lists, added to your own environment
  env remove -n NAME                 delete one of your own

All have --json where conda has it. Other commands are those of a real conda or mamba, which the
active environment has when “conda” or “mamba” is among its packages.
"""


@dataclass(frozen=True)
class Found:
    """An environment: where it belongs, what it is called, and its folder.

    ``titles`` are what the launcher calls its kernels; ``reason`` says why nobody can enter it.
    """

    source: str
    name: str
    prefix: str
    titles: tuple[str, ...] = ()
    reason: Message | None = None


def environments(list_of: CondaKernelSpecManager | None = None) -> list[Found]:
    """All environments of the server's kernel list, nearest first; by its settings and its code.

    One without a kernel is among them: a terminal needs none.
    """
    list_of = list_of or _servers_list()
    found = []
    for one, titles in list_of.open_to_terminals():
        place, can = one.place, one.state in _ENTERED
        reason = None if can else one.reason or say("short_unavailable")
        found.append(Found(place.source, place.environment, place.prefix, titles, reason))
    return sorted(found, key=_distance)


def _servers_list() -> CondaKernelSpecManager:
    try:
        return manager()
    except Exception as error:  # whatever a configuration file, which is a program, can raise
        raise Refused(say("configuration_not_read", error=why(error))) from error


def _distance(found: Found) -> int:
    starts = enumerate(_ORDER)
    return next((n for n, start in starts if found.source.startswith(start)), len(_ORDER))


def find(word: str, known: list[Found] | None = None) -> Found:
    """The environment that somebody means. Raises Refused.

    ``base``, which every tutorial has, is the one that was chosen at the start.
    """
    if word in ("", "base") and (chosen := _chosen()):
        word = chosen
    if word.startswith(("/", "~", ".")):
        prefix = os.path.abspath(os.path.expanduser(word))
        if os.path.exists(f"{prefix}/conda-meta/history"):
            return Found("path", os.path.basename(prefix), prefix)
        raise Refused(say("no_conda_environment", path=word))
    if known is None:
        known = environments()
    source, _, name = word.rpartition("/")
    fitting = [one for one in known if one.name == name and source in ("", one.source)]
    fitting += [one for one in known if word in one.titles]
    for one in fitting:
        if not one.reason:
            return one
    if fitting:
        raise Refused(say("cannot_be_used", name=word, reason=fitting[0].reason))
    names = list(dict.fromkeys(one.name for one in known if not one.reason))
    if not names:
        raise Refused(say("no_environments", name=word))
    raise Refused(say("no_such_environment", name=word, names=names))


def _chosen() -> str:
    """The folder of the environment that the server was started with."""
    name = started()[0]
    return os.environ.get("LABCOMMONS_CHOSEN") or (name and f"{commands.ROOT}/envs/{name}")


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
    lines += beside.julia_in_shell(found.prefix, base.get("HOME", ""))
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


def main(words: list[str]) -> int:
    """What is asked; ``--shell`` first by the shell's function, which carries words out."""
    in_shell = words[:1] == ["--shell"]
    program, *words = words[1:] if in_shell else words
    try:
        return _answer(program, words, in_shell)
    except (Refused, ConsoleError, ActivationError) as error:
        print(f"{program}: {error.message.in_words(persons_language())}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{program}: {error.filename or ''}: {error.strerror}", file=sys.stderr)
        return 1


def _answer(program: str, words: list[str], in_shell: bool) -> int:  # noqa: PLR0912
    if words[:1] == ["run"]:
        return _run(words[1:])
    line = commands.read(words)
    match line.words:
        case ["activate" | "deactivate" | "reactivate" as what, *names]:
            if not in_shell:
                raise Refused(_by_program(what, names or [line.target]))
            print(_words_for_shell(what, [*names, line.target]))
        case [shell, what, *names] if shell.startswith("shell."):
            if shell.partition(".")[2] not in ("bash", "zsh", "posix", "dash", "ksh"):
                raise Refused(say("shell_unknown", shell=shell.partition(".")[2]))
            print(_hook() if what == "hook" else _words_for_shell(what, names))
        case ["shell", "hook", *_]:
            print(_hook())
        case ["init", *_] | ["shell", "init", *_]:
            print(say("no_init").in_words(persons_language()))
        case ["env", "list"]:
            commands.show_environments(_named(), line.as_json)
        case ["info"] if line.flags & {"--envs", "-e"}:
            commands.show_environments(_named(), line.as_json)
        case ["info"] if "--base" in line.flags:
            print(commands.ROOT)
        case ["info"]:
            commands.show_info(_named(), _folders(), line.as_json)
        case ["list", *_]:
            commands.show_packages(_prefix(line), line)
        case ["env", "export"] | ["export"]:
            commands.export(_prefix(line), line)
        case []:
            print(_USAGE if not line.flags & {"-V", "--version"} else f"{program} 0 (LabCommons)")
        case ["help"]:
            print(_USAGE)
        case rest:
            return _change(program, rest, line, words)
    return 0


def _change(  # noqa: PLR0911, PLR0912
    program: str, rest: list[str], line: Line, words: list[str]
) -> int:
    """What builds or changes: a real conda's, where there is one."""
    if real := _find_real(program):
        os.execv(real, [real, *words])  # noqa: S606
    match rest:
        case ["create"] if origin := line.value("--clone"):
            return commands.clone(find(origin).prefix, line)
        case ["create", *_] | ["env", "create", *_]:
            return commands.create(line, rest)
        case ["install", *names] if names and set(names) <= {*_PROGRAMS}:
            print(say("nothing_to_do").in_words(persons_language()))
            return 0
        case ["install", *_]:
            return commands.install(_prefix(line), line)
        case ["remove" | "uninstall", *_] if "--all" in line.flags:
            return commands.remove_environment(line)
        case ["remove" | "uninstall", *_]:
            return commands.install(_prefix(line), line, remove=True)
        case ["env", "remove", *_]:
            return commands.remove_environment(line)
        case ["update" | "upgrade", "conda" | "mamba"] | ["clean", *_]:
            print(say("nothing_to_do").in_words(persons_language()))
            return 0
        case ["env", "update", *_]:
            return commands.update(_prefix(line), line)
        case ["update" | "upgrade", *_]:
            raise Refused(say("no_update", program=program))
        case ["config", *_]:
            return _config(line)
        case ["search", *_] | ["repoquery", *_]:
            raise Refused(say("no_search"))
    raise Refused(say("needs_real_conda", command=" ".join([program, *words])))


def _config(line: Line) -> int:
    known = commands.condarc()
    if "--show" in line.flags or line.words == ["config"]:
        for name, value in known.items():
            print(f"{name}: {json.dumps(value)}")
        return 0
    if line.words[1:2] == ["channels"] and set(line.words[2:]) <= set(known.get("channels", [])):
        return 0
    raise Refused(say("config_is_sites"))


def _words_for_shell(what: str, names: list[str]) -> str:
    if what == "deactivate":
        return deactivate(os.environ)
    if what == "reactivate":
        names = [os.environ.get("CONDA_PREFIX", "")]
    return activate(find(next(filter(None, names), "")), os.environ)


def _by_program(what: str, names: list[str]) -> Message:
    """A program cannot change the shell that it was started by."""
    name = next(filter(None, names), "NAME")
    told = f"conda shell.posix {what}" + (f" {shlex.quote(name)}" if what == "activate" else "")
    return say("activate_by_shell", command=f'eval "$({told})"')


def _hook() -> str:
    return Path(_HOOK).read_text("utf-8")


def _named() -> dict[str, str]:
    """Prefixes of all that can be entered, by source and name."""
    return {f"{one.source}/{one.name}": one.prefix for one in environments() if not one.reason}


def _folders() -> list[str]:
    return list(dict.fromkeys(os.path.dirname(prefix) for prefix in _named().values()))


def _prefix(line: Line) -> str:
    """The environment that is named, else the active one."""
    if line.target:
        return find(line.target).prefix
    if active := os.environ.get("CONDA_PREFIX"):
        return active
    if not started()[0]:
        raise Refused(say("no_environment_active"))
    return find("base").prefix


def _run(words: list[str]) -> int:
    """``conda run [-n NAME] [--cwd FOLDER] COMMAND…``: its own options end at the command."""
    options: list[str] = []
    while words and words[0].startswith("-"):
        options.append(words.pop(0))
        if options[-1] in ("-n", "--name", "-p", "--prefix", "--cwd") and words:
            options.append(words.pop(0))
    line = commands.read(["run", *options])
    if not words:
        raise Refused(say("run_what"))
    found = find(line.target) if line.target else None
    prefix = found.prefix if found else _prefix(line)
    if folder := line.value("--cwd"):
        os.chdir(folder)
    return commands.run(prefix, found.name if found else os.path.basename(prefix), words)


def _find_real(program: str) -> str | None:
    """A real conda or mamba on the PATH, which ours is not."""
    for name in dict.fromkeys((program, *_PROGRAMS)):
        for folder in os.environ.get("PATH", "").split(":"):
            path = os.path.join(folder, name)
            if os.access(path, os.X_OK) and not os.path.realpath(path).endswith(SERVERS_PROGRAM):
                return path
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

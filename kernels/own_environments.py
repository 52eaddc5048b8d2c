"""``labcommons env add|remove|keep|local`` in a server: one's own environments, from a terminal.

What is asked for is built by the site, by its rules, as on the page Environments; the command
follows the build to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kernels import user_site
from kernels.console import Console, ConsoleError
from kernels.current import changes, told
from kernels.messages import persons_language, say, verbatim
from kernels.packages import Offer, environment_of, is_installed, offer, started, tell

# The console's code for a change that is none.
_NOTHING = "edit_nothing_to_change"
LOOK = 0.5  # seconds between two looks at a build
_LONGEST = 3600.0  # seconds until nobody waits any more
_EXAMPLES = """examples:
  labcommons env add cowsay                    the active environment, or the server's
  labcommons env add --from shared/torch "numpy<2"
  labcommons env add --conda graphviz
  labcommons env remove cowsay
  labcommons env keep                          what pip installed here becomes a version of its own
  labcommons env local --to mine               packages of ~/.local, into an environment
  labcommons env local --aside                 out of the way"""


def derive(console: Console, wanted: Offer, name: str | None = None) -> dict[str, Any]:
    """Ask for what is offered; the build. In one's own, what was changed by hand comes along."""
    change = {"add": list(wanted.add), "pip": list(wanted.pip), "remove": list(wanted.remove)}
    if wanted.source == "personal":
        change = with_changes(change, changes(folder_of(wanted.name)))
    body = {**change, "channels": wanted.channels, "name": name, "version": wanted.version}
    try:
        return console.derive(wanted.source, wanted.name, body)
    except ConsoleError as error:
        if error.code != _NOTHING or (mine := _that_has(wanted)) is None:
            raise
        return {"id": "", "name": mine, "state": "done", "percent": 100}


def _that_has(wanted: Offer) -> str | None:
    """One's own copy in which nothing would change: it has been made before."""
    names = [wanted.name, *(f"{wanted.name}-{number}" for number in range(2, 10))]
    asked = [*wanted.pip, *wanted.add]
    return next(
        (
            name
            for name in names
            if os.path.isdir(f"{folder_of(name)}/conda-meta")
            and all(is_installed(folder_of(name), item) for item in asked)
        ),
        None,
    )


def folder_of(name: str) -> str:
    """Where a personal environment that the site built is."""
    return os.path.realpath(os.path.expanduser(f"~/.conda/envs/{name}"))


def with_changes(
    change: Mapping[str, list[str]], differences: Mapping[str, Any]
) -> dict[str, list[str]]:
    """A change, and what was changed by hand; what was asked for now wins."""
    found = {kind: list(change.get(kind, ())) for kind in ("add", "pip", "remove")}
    named = {bare_name(item) for items in found.values() for item in items}
    for kind, where, exactly in (("conda", "add", "="), ("pip", "pip", "==")):
        for name, (_, now) in differences.get(kind, {}).items():
            if bare_name(name) in named or bare_name(name) == "pip":
                continue
            found["remove" if now is None else where].append(
                name if now is None else f"{name}{exactly}{now}"
            )
    return found


def bare_name(requirement: str) -> str:
    """What two requirements of one package have in common."""
    name = requirement.rpartition("::")[2]
    end = next((n for n, sign in enumerate(name) if sign in " <>=!~;[("), len(name))
    return name[:end].lower().replace("_", "-").replace(".", "-")


def follow(
    console: Console,
    build: Mapping[str, Any],
    show: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The build when it is over. Raises ConsoleError where it failed, or nobody answers."""
    if build.get("state") == "done":
        return dict(build)
    number, missed, until = str(build["id"]), 0, time.monotonic() + _LONGEST
    while time.monotonic() < until:
        try:
            found, missed = console.build(number), 0
        except ConsoleError:
            missed += 1
            if missed > 20:  # the hub may be restarted meanwhile
                raise
            sleep(LOOK)
            continue
        state = found.get("state")
        if state == "done":
            return found
        if state not in ("queued", "running"):
            raise ConsoleError(verbatim(words_of(found) or str(state)))
        show(f"{found.get('percent', 0):3}%  {words_of(found)}")
        sleep(LOOK)
    raise ConsoleError(say("build_goes_on"))


def words_of(build: Mapping[str, Any]) -> str:
    """What a build says of itself, in the person's language."""
    return str(build.get("sentence") or build.get("message") or "")[:2000]


def wait_for(console: Console, build: Mapping[str, Any], as_json: bool = False) -> int:
    """Follow a build on the error output; the exit status."""
    alive = sys.stderr.isatty()
    last = ""

    def show(line: str) -> None:
        nonlocal last
        if not line.endswith("%  ") and line != last and not as_json:
            sys.stderr.write(f"\r\x1b[K{line[:100]}" if alive else f"{line}\n")
            sys.stderr.flush()
        last = line

    try:
        done = follow(console, build, show)
    except KeyboardInterrupt:
        tell(say("build_goes_on"))
        return 130
    finally:
        if alive and last and not as_json:
            sys.stderr.write("\r\x1b[K")
    if as_json:
        print(json.dumps(done, indent=2, ensure_ascii=False))
    else:
        name = str(done.get("name"))
        gone = say("deleted", name=name) if done.get("action") == "delete" else None
        print((gone or say("copy_ready", name=name)).in_words(persons_language()))
    return 0


def _active() -> str:
    prefix = os.environ.get("CONDA_PREFIX")
    return prefix or f"/opt/conda/envs/{started()[0]}"


def _wanted(chosen: argparse.Namespace) -> Offer:
    """The offer that a command line describes."""
    words = tuple(chosen.packages)
    kind = "remove" if chosen.command == "remove" else "add" if chosen.conda else "pip"
    if not chosen.origin:
        return offer(_active(), **{kind: words}, channels=chosen.channels)
    source, _, name = chosen.origin.rpartition("/")
    version = started()[1] if (source, name) == ("image", started()[0]) else ""
    return Offer(
        source or "personal", name, version, **{kind: words}, channels=tuple(chosen.channels)
    )


def _keep(chosen: argparse.Namespace) -> int:
    prefix = os.path.expanduser(f"~/.conda/envs/{chosen.name}") if chosen.name else _active()
    source, name = environment_of(prefix)
    if source != "personal":
        tell(say("keep_own_only", name=name))
        return 1
    found = changes(os.path.realpath(prefix))
    if not found:
        print(say("nothing_to_keep", name=name).in_words(persons_language()))
        return 0
    print(say("keeping", name=name, changes=told(found)).in_words(persons_language()))
    console = Console()
    return wait_for(console, derive(console, Offer("personal", name)), chosen.json)


def _local(chosen: argparse.Namespace) -> int:
    found = user_site.look()
    if chosen.json and not chosen.aside and not chosen.to:
        print(json.dumps([vars(one) for one in found], indent=2))
        return 0
    if not found:
        print(say("home_clean").in_words(persons_language()))
        return 0
    if chosen.to:
        packages = tuple(dict.fromkeys(item for one in found for item in one.packages))
        console = Console()
        if os.path.isdir(folder_of(chosen.to)):
            wanted, name = Offer("personal", chosen.to, pip=packages), None
        else:
            wanted, name = offer(_active(), pip=packages), chosen.to
        code = wait_for(console, derive(console, wanted, name), chosen.json)
        if code:
            return code
    if chosen.aside or chosen.to:
        print(say("moved_aside", folder=user_site.move_aside()).in_words(persons_language()))
        return 0
    for one in found:
        print(f"Python {one.python}  {one.folder}")
        for item in one.packages:
            print(f"    {item}")
    print(say("in_home").in_words(persons_language()))
    return 0


def parser() -> argparse.ArgumentParser:
    """The commands' grammar."""
    made = argparse.ArgumentParser(
        prog="labcommons env",
        description="Your own environments: packages added, removed, kept.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True)
    for name, about in (
        ("add", "your own copy of an environment with packages added"),
        ("remove", "your own copy of an environment without packages"),
        ("keep", "make a version of what you installed by hand in your own environment"),
        ("local", "what pip install --user left in ~/.local, and the way out"),
    ):
        one = commands.add_parser(
            name,
            help=about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=_EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument("--json", action="store_true", help="print the build as JSON")
        if name in ("add", "remove"):
            one.add_argument("packages", nargs="+", metavar="PACKAGE", help='such as "numpy>=2"')
            one.add_argument("--from", dest="origin", metavar="SOURCE/NAME")
            one.add_argument("--name", help="of the copy")
            one.add_argument(
                "--conda", action="store_true", help="from conda's channels, not pip's"
            )
            one.add_argument(
                "-c", "--channel", dest="channels", action="append", default=[], metavar="CHANNEL",
                help="of conda, to look into first",
            )  # fmt: skip
        elif name == "keep":
            one.add_argument("name", nargs="?", help="of the environment; else the active one")
        else:
            one.add_argument("--aside", action="store_true", help="move it out of the way")
            one.add_argument("--to", metavar="NAME", help="into an environment, then aside")
    return made


def main(words: Sequence[str] | None = None) -> int:
    """``labcommons env …``; its exit status."""
    chosen = parser().parse_args(words)
    try:
        if chosen.command == "keep":
            return _keep(chosen)
        if chosen.command == "local":
            return _local(chosen)
        console = Console()
        return wait_for(console, derive(console, _wanted(chosen), chosen.name), chosen.json)
    except ConsoleError as error:
        tell(error.message)
        return 1
    except OSError as error:
        tell(verbatim(f"{shlex.quote(str(error.filename or ''))}: {error.strerror}"))
        return 1


if __name__ == "__main__":
    sys.exit(main())

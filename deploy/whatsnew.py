"""``labcommons whatsnew``: what CHANGELOG.md says now, and did not in the version before."""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from deploy import release, settings
from deploy.files import write_atomically
from deploy.release import Release, State
from deploy.settings import ROOT

CHANGES = "CHANGELOG.md"
ABOUT = """Say what is new in the version that runs, since the one that ran before the last
`make up` with another version: the release notes, of which the whole is CHANGELOG.md."""
ENDS = """examples:
  labcommons whatsnew
  labcommons whatsnew --all | less
  labcommons whatsnew --json"""


@dataclass(frozen=True)
class Change:
    """One entry: under which version (``## …``) and which line before the list, and its text."""

    version: str
    part: str
    text: str


def changes(document: str) -> list[Change]:
    """All entries of a changelog: what begins with ``- ``, with the lines that go on."""
    found: list[Change] = []
    version = part = ""
    for block in re.split(r"\n(?=- |## )|\n\s*\n", document):
        text = " ".join(block.split())
        if text.startswith("## "):
            version, part = text[3:], ""
        elif text.startswith("- "):
            found.append(Change(version, part, text[2:]))
        elif text:
            part = text
    return found


def since(now: str, before: Release | None, then: str | None) -> list[Change]:
    """What is new since the version before, whose changelog was ``then``.

    Where that is not to be had, all of the later versions; of the same version, that one's.
    """
    every = changes(now)
    if then is not None:
        known = {one.text for one in changes(then)}
        return [one for one in every if one.text not in known]
    versions = list(dict.fromkeys(one.version for one in every))
    number = before.version if before else ""
    at = [place for place, one in enumerate(versions) if number and one.split()[0] == number]
    newer = versions[: at[0]] if at else versions
    return [one for one in every if one.version in (newer or versions[:1])]


def whatsnew(words: Sequence[str]) -> int:
    """Print it; exit code 0."""
    parser = argparse.ArgumentParser(
        prog="labcommons whatsnew",
        description=ABOUT,
        epilog=ENDS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--all", action="store_true", help="all there is, of every version")
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    asked = parser.parse_args(words)
    state = release.load(settings.load())
    before = None if asked.all else state.previous
    running = str(state.running or Release(release.version(), settings.revision()))
    found = news(before)
    if asked.json:
        print(as_json(running, before, found))
    else:
        show(running, before, found, asked.all)
    return 0


def news(before: Release | None) -> list[Change]:
    """What is new since that version; without one, all there is."""
    now = settings.read(ROOT / CHANGES)
    if before is None:
        return changes(now)
    return since(now, before, release.git("show", f"{before.commit.rstrip('+')}:{CHANGES}"))


def as_json(running: str, before: Release | None, found: Sequence[Change]) -> str:
    rows = [{"version": one.version, "part": one.part, "text": one.text} for one in found]
    said = {"running": running, "before": str(before) if before else None, "changes": rows}
    return json.dumps(said, ensure_ascii=False)


def write(state: State) -> None:
    """For the page Health, beside ``config/revision``."""
    said = as_json(str(state.running), state.previous, news(state.previous))
    with suppress(OSError):  # it is not shown, then
        write_atomically(ROOT / "config" / "news.json", said + "\n", 0o644)


def show(running: str, before: Release | None, found: Sequence[Change], every: bool) -> None:
    print(f"LabCommons {running}" + (f"; before it ran {before}" if before else ""))
    if before is None and not every:
        print("No other version ran here before: labcommons whatsnew --all shows all changes.")
        return
    if not found:
        print(f"{CHANGES} says nothing new since then.")
    title = ("", "")
    for one in found:
        if title != (one.version, one.part):
            title = (one.version, one.part)
            print(f"\n{one.version}" + (f": {one.part.rstrip(':')}" if one.part else ""))
        print(textwrap.fill(one.text, 96, initial_indent="  - ", subsequent_indent="    "))

"""What a server saw of environments, kept for the person's next server.

One JSON file below ``XDG_CACHE_HOME``. Each entry carries the stamps it rests on, so it is
only believed as far as the disk still says the same; a file that is damaged, of another
layout or absent only costs time.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kernels import files
from kernels.kernelspec import Place, SpecError, check_document
from kernels.messages import Message
from kernels.prefix import Environment, FoundKernel, Known, Stamp, State
from kernels.sources import Source

# Raised with every change of the layout or of what is concluded from a prefix.
LAYOUT = 2
_MAX_BYTES = 64 * 1024 * 1024

Entries = dict[Source, dict[str, Known]]


def cache_file(environ: Mapping[str, str] = os.environ) -> str:
    """Where a person's file is: ``$XDG_CACHE_HOME/labcommons/kernels.json``."""
    base = environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "labcommons", "kernels.json")


def load(path: str) -> Entries:
    """What is remembered; nothing where the file cannot be used. Never raises."""
    try:
        raw, _ = files.read(path, _MAX_BYTES + 1)
        document = json.loads(raw) if len(raw) <= _MAX_BYTES else None
        if not isinstance(document, dict) or document.get("layout") != LAYOUT:
            return {}
        return {
            Source(*map(_text, source)): {
                known.environment.place.prefix: known for known in map(_known, entries)
            }
            for source, entries in document["sources"]
        }
    except (OSError, ValueError, TypeError, KeyError, RecursionError, SpecError):
        return {}


def save(path: str, entries: Entries) -> None:
    """Replace the file by what is known now. Raises OSError; the old file is whole until then."""
    document = {
        "layout": LAYOUT,
        "sources": [
            [
                [source.id, source.pattern, source.label],
                [_plain(known) for known in all_of.values()],
            ]
            for source, all_of in entries.items()
        ],
    }
    raw = json.dumps(document, separators=(",", ":")).encode()
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    files.replace(path, raw)


def _plain(known: Known) -> list[Any]:
    environment, place = known.environment, known.environment.place
    return [
        [
            *(place.source, place.label, place.prefix, place.environment),
            *(place.version, place.python, place.alone),
        ],
        [
            environment.state,
            environment.reason and environment.reason.as_json(),
            [(own, reason.as_json()) for own, reason in environment.problems],
            environment.deprecated,
            dict(environment.titles),
        ],
        [environment.identity, environment.changed],
        [[each.own_name, each.resource_dir, _document(each)] for each in environment.kernels],
        [known.folder, known.folders, known.files, known.settled],
    ]


def _document(kernel: FoundKernel) -> dict[str, Any]:
    spec = kernel.spec
    return {
        "argv": spec.argv,
        "display_name": spec.display_name,
        "language": spec.language,
        "env": dict(spec.env),
        "interrupt_mode": spec.interrupt_mode,
        "kernel_protocol_version": spec.protocol,
        "metadata": dict(spec.metadata),
    }


def _known(item: Any) -> Known:
    """One entry, checked as a kernel.json would be. Raises what ``load`` expects."""
    (source, label, prefix, name, version, python, alone), standing, seen, kernels, rest = item
    state, reason, problems, deprecated, titles = standing
    identity, changed = seen
    said = [reason, *(why for _, why in problems)]
    folder, folders, files, settled = rest
    place = Place(
        _text(source), _text(label), _text(prefix), _text(name), _maybe(version), _maybe(python),
        alone is True,
    )  # fmt: skip
    real = os.path.realpath(prefix) if os.path.islink(prefix) else prefix
    return Known(
        Environment(
            place,
            State(state),
            Message.from_json(reason) if reason else None,
            tuple(
                FoundKernel(_text(own), _text(where), _spec(document, prefix, real))
                for own, where, document in kernels
            ),
            tuple((_text(own), Message.from_json(why)) for own, why in problems),
            _maybe(deprecated),
            None if identity is None else (int(identity[0]), int(identity[1])),
            float(changed),
            titles=tuple((_text(lang), _text(text)) for lang, text in titles.items()),
        ),
        _text(folder),
        [(_text(path), _stamp(stamp)) for path, stamp in folders],
        [(_text(path), _stamp(stamp)) for path, stamp in files],
        # What an older server has said in words alone is found out anew.
        bool(settled) and not any(isinstance(each, str) and each for each in said),
    )


def _spec(document: Any, prefix: str, real: str) -> Any:
    spec = check_document(document, prefix, real)
    # Bare names were made absolute before they were kept.
    return replace(spec, argv=tuple(document["argv"]))


def _stamp(value: Any) -> Stamp:
    if value is None:
        return None
    modified, inode, size = value
    return int(modified), int(inode), int(size)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _maybe(value: Any) -> str | None:
    return None if value is None else _text(value)

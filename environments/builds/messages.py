"""What builds say, as messages that are put into words where they are read.

The English is always there beside it, for logs and programs. What a builder says is a person's
word: it is read within limits, and of a code that is known here the words are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from commons.i18n import N_, Gettext
from commons.messages import Message, Text
from environments import messages as _texts
from environments.errors import (
    BuildError,
    ChannelError,
    LockError,
    NoKernel,
    NoSuchPackage,
    PolicyError,
    SpecError,
)
from environments.files import KERNEL_PACKAGES

# All that builders say is known here, in whatever process this is read.
assert _texts.__all__
# What kind of failure it is, in a sentence with the remedy; the parameter ``reason`` is what the
# builder says of it.
FAILURES = {
    "spec": Text(
        "build_failed_spec",
        N_("environment.yml or labcommons.yml is wrong. Correct the line that is named:"),
    ),
    "channel": Text(
        "build_failed_channel",
        N_("A channel does not answer. Try again later, or take another channel:"),
    ),
    "lock": Text(
        "build_failed_lock",
        N_("These packages conflict. Change those named below:"),
    ),
    "package": Text(
        "build_failed_package",
        N_("A package is not available. Correct its name or its version:"),
    ),
    "kernel": Text(
        "build_failed_kernel",
        N_("A kernel is missing, which is what a notebook runs in. Nothing was installed:"),
    ),
    "policy": Text(
        "build_failed_policy", N_("The site's rules refuse it. Take what they would accept:")
    ),
    "disk": Text(
        "build_failed_disk",
        N_("A file cannot be read or written. Make room, or ask an administrator:"),
    ),
    "build": Text("build_failed_build", N_("The build failed. The reason, and what to do:")),
}
# Of these, the same text fails again: it wants to be corrected.
_OF_THE_TEXT = frozenset(
    FAILURES[kind].code for kind in ("spec", "lock", "package", "kernel", "policy")
)
FAILED = frozenset(text.code for text in FAILURES.values())
_KINDS: tuple[tuple[type[Exception], str], ...] = (
    (SpecError, "spec"),
    (ChannelError, "channel"),
    (NoSuchPackage, "package"),
    (NoKernel, "kernel"),
    (LockError, "lock"),
    (PolicyError, "policy"),
    (BuildError, "build"),
)


def kind_of(error: Exception) -> str:
    """Which of FAILURES an error is."""
    return next((kind for each, kind in _KINDS if isinstance(error, each)), "disk")


RESTARTED = Text(
    "build_restarted",
    N_("The hub was restarted several times while this was built. Try it again."),
)
TOO_LONG = Text(
    "build_too_long",
    N_(
        "It took too long and was stopped. A folder with very many files, or a disk that hangs, "
        "can be the reason; ask an administrator."
    ),
)
HANGS = Text(
    "build_hangs",
    N_("It took too long and could not be stopped: a disk may hang. Tell an administrator."),
)
TIMED_OUT = Text(
    "build_timed_out",
    N_(
        "The build was stopped after {seconds} seconds, the site's limit (builds.timeout). Ask "
        "for fewer packages, or ask an administrator."
    ),
)
OUT_OF_MEMORY = Text(
    "build_out_of_memory",
    N_(
        "The build needed more memory than builds may use here (builds.memory). Ask for fewer "
        "packages, or ask an administrator."
    ),
)
NO_RESULT = Text(
    "build_no_result",
    N_("The build ended without a result. Try it again; if it ends so again, see its log."),
)
UNCLEAR = Text(
    "build_unclear", N_("The builder's answer cannot be understood. Tell an administrator.")
)
NOT_GONE_ON = Text(
    "build_not_gone_on", N_("The build could not go on: {reason}. Tell an administrator.")
)
HUB_WRONG = Text(
    "build_hub_wrong", N_("Something went wrong in the hub. Tell an administrator the time.")
)


def can_help(kept: Mapping[str, Any] | None) -> bool:
    """Whether asking again for what failed can end otherwise, though its text is the same."""
    return (kept or {}).get("code") not in _OF_THE_TEXT


def missing_package(kept: Mapping[str, Any] | None) -> str | None:
    """The one package that a failure names as what has to be added."""
    if not kept or kept.get("code") != FAILURES["kernel"].code:
        return None
    reason = _reason(Message.from_json(kept))
    found = reason.params.get("package") if reason else None
    # A builder's word: only what we would say ourselves.
    return found if found in KERNEL_PACKAGES else None


def failed(kind: str, reason: str | Message) -> Message:
    """What a builder said of its failure, whoever wrote it; within limits."""
    text = FAILURES.get(kind, FAILURES["build"])
    return Message.from_json(text(reason=reason).as_json())


def told(message: Message) -> str:
    """In English, for logs and programs: of what only the builder can explain, its reason."""
    return str(message.params.get("reason") or message) if message.code in FAILED else str(message)


def is_explained(kept: Mapping[str, Any] | None) -> bool:
    """Whether the sentence of what is kept says all; else the builder's own words follow it."""
    if not kept or kept.get("code") not in FAILED:
        return True
    return _reason(Message.from_json(kept)) is not None


def _reason(message: Message) -> Message | None:
    """Why something failed, where a builder said it as a message."""
    reason = message.params.get("reason") if message.code in FAILED else None
    return reason if isinstance(reason, Message) else None


def in_words(kept: Mapping[str, Any] | None, gettext: Gettext) -> str | None:
    """It in a language; None where it is not known as data."""
    if not kept or "code" not in kept:
        return None
    message = Message.from_json(kept)
    reason = _reason(message)
    more = f"\n{reason.in_words(gettext)}" if reason else ""
    return f"{message.in_words(gettext)}{more}"

"""What a kernel list shows of environments: names, words, and those that cannot start.

Pure: from environments as they were found to entries as Jupyter lists them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from kernels.kernelspec import (
    CheckedSpec,
    Place,
    display_name,
    earlier_names,
    kernel_names,
    native_spec,
    short_version,
)
from kernels.messages import ENGLISH, Message, say
from kernels.prefix import Environment, FoundKernel, State

# Seconds that an environment has to be quiet before it is called unfinished: one that is just
# being made is no news.
QUIET = 30.0

# The language of what cannot start, so that it is nobody's choice for a language.
UNUSABLE = "none"

# What is said in the list; the whole reason is in the metadata and in the notebook.
_SHORT = {
    State.NO_KERNEL: say("short_no_kernel"),
    State.INCOMPLETE: say("short_incomplete"),
    State.BROKEN: say("short_broken"),
    State.UNREADABLE: say("short_unreadable"),
    State.WITHDRAWN: say("short_withdrawn"),
    State.UNAVAILABLE: say("short_unavailable"),
}
_IPYKERNEL = ("-m", "ipykernel_launcher", "-f", "{connection_file}")


@dataclass(frozen=True)
class Rules:
    """What a site's configuration makes of the list.

    ``hidden`` are globs of kernel names, ``renamed`` maps such globs to templates of display
    names, ``unusable`` are the states of environments that are shown though they cannot
    start, ``grouped`` puts the source's label first, ``language`` is that of what is said of
    environments.
    """

    hidden: Sequence[str] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    unusable: frozenset[State] = frozenset(State)
    grouped: bool = False
    language: str = ENGLISH


@dataclass(frozen=True)
class ListedKernel:
    """One line of the list; ``document`` is its kernelspec."""

    name: str
    own_name: str
    environment: Environment
    resource_dir: str
    document: dict[str, Any]

    @property
    def is_healthy(self) -> bool:
        return "state" not in self.document["metadata"]["labcommons"]


@dataclass(frozen=True)
class Menu:
    """The list. ``hidden`` are names that others must not show either; ``earlier`` are other names
    of kernels, which notebooks may have; ``until`` is when time alone will change it, in seconds
    since the epoch.
    """

    entries: Mapping[str, ListedKernel] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    earlier: Mapping[str, str] = field(default_factory=dict)
    until: float = float("inf")


def menu(environments: Sequence[Environment], rules: Rules, now: float) -> Menu:
    """The list of some environments at a time in seconds since the epoch."""
    until = float("inf")
    lines: list[tuple[Environment, str, FoundKernel | None, Message | None, State]] = []
    for environment in environments:
        quiet = environment.changed + QUIET
        if environment.state in (State.NO_KERNEL, State.INCOMPLETE) and now < quiet < now + QUIET:
            until = min(until, quiet)
            continue
        lines += _lines(environment)
    names = kernel_names([(environment.place, own) for environment, own, *_ in lines])
    entries: dict[str, ListedKernel] = {}
    hidden: set[str] = set()
    for name, (environment, own, kernel, reason, state) in zip(names, lines, strict=True):
        shown = state is State.HEALTHY or state in rules.unusable
        if not shown or _is_hidden((name, *earlier_names(environment.place, own)), rules):
            hidden.add(name)
            continue
        spec = kernel.spec if kernel else _guess(environment.place)
        document = native_spec(environment.place, own, spec)
        mark: dict[str, Any] = document["metadata"]["labcommons"]
        mark["kernel"] = own
        document["display_name"] = _shown(name, own, environment, spec, state, rules)
        if state is not State.HEALTHY:
            mark["state"] = str(state)
            if reason is not None:
                mark["reason"] = reason.in_words(rules.language)
                mark["reasons"] = [reason.as_json(rules.language)]
            # JupyterLab offers kernels by language, first of all to notebooks without one.
            document["language"] = UNUSABLE
        if environment.deprecated:
            mark["deprecated"] = environment.deprecated
        folder = f"{environment.place.prefix}/share/jupyter/kernels/{own}"
        entries[name] = ListedKernel(name, own, environment, folder, document)
    return Menu(entries, frozenset(hidden), _earlier(entries, hidden), until)


def _earlier(entries: Mapping[str, ListedKernel], hidden: Collection[str]) -> dict[str, str]:
    """Other names than those of the list, each of one kernel alone."""
    means: dict[str, set[str]] = {}
    for name, entry in entries.items():
        environment = entry.environment
        for place in (environment.place, *environment.also):
            for other in earlier_names(place, entry.own_name):
                means.setdefault(other, set()).add(name)
    return {
        other: names.pop()
        for other, names in means.items()
        if len(names) == 1 and other not in entries and other not in hidden
    }


def open_to(environments: Sequence[Environment], rules: Rules) -> dict[str, tuple[str, ...]]:
    """The prefixes that the rules do not hide, each with what the list calls it.

    For terminals, which need no kernel: of an environment that has none, the rules mean the
    name that its kernel would have.
    """
    lines = [
        line
        for environment in environments
        for line in _lines(environment) or [(environment, "python3", None, None, environment.state)]
    ]
    names = kernel_names([(environment.place, own) for environment, own, *_ in lines])
    found: dict[str, tuple[str, ...]] = {}
    for name, (environment, own, kernel, _, _) in zip(names, lines, strict=True):
        if not _is_hidden((name, *earlier_names(environment.place, own)), rules):
            spec = kernel.spec if kernel else _guess(environment.place)
            title = _shown(name, own, environment, spec, State.HEALTHY, rules)
            prefix = environment.place.prefix
            found[prefix] = (*found.get(prefix, ()), title)
    return found


def _is_hidden(names: Iterable[str], rules: Rules) -> bool:
    return any(fnmatchcase(name, each) for name in names for each in rules.hidden)


def _lines(
    environment: Environment,
) -> list[tuple[Environment, str, FoundKernel | None, Message | None, State]]:
    """The kernels of an environment, and in place of each that cannot start, why."""
    state, reason = environment.state, environment.reason
    lines: list[tuple[Environment, str, FoundKernel | None, Message | None, State]] = [
        (environment, kernel.own_name, kernel, reason, state) for kernel in environment.kernels
    ]
    lines += [(environment, own, None, why, State.BROKEN) for own, why in environment.problems]
    # Without Python it is somebody's tools, and nobody misses a kernel in it.
    if not lines and (state is not State.NO_KERNEL or environment.place.python):
        lines.append((environment, "python3", None, reason, state))
    return lines


def _guess(place: Place) -> CheckedSpec:
    """What the kernel will most likely be once the environment is repaired."""
    return CheckedSpec((f"{place.prefix}/bin/python", *_IPYKERNEL), "", "python")


def _shown(
    name: str, own: str, environment: Environment, spec: CheckedSpec, state: State, rules: Rules
) -> str:
    place = environment.place
    names = (name, *earlier_names(place, own))
    templates = (
        template
        for glob, template in rules.renamed.items()
        if any(fnmatchcase(each, glob) for each in names)
    )
    template = next(templates, None)
    called = replace(place, environment=environment.title(rules.language) or place.environment)
    if template is not None:
        shown = render(template, place, own)
    elif rules.grouped and place.label:
        shown = f"{place.label}: {display_name(replace(called, label=''), own, spec)}"
    else:
        shown = display_name(called, own, spec)
    if state is not State.HEALTHY:
        return f"{shown} ({_SHORT[state].in_words(rules.language)})"
    if environment.deprecated:
        return f"{shown} ({say('short_deprecated').in_words(rules.language)})"
    return shown


def render(template: str, place: Place, own_name: str) -> str:
    """A display name by a site's template. Raises ValueError for one that cannot be used."""
    values = {
        "environment": place.environment,
        "source": place.source,
        "label": place.label,
        "python": short_version(place.python) or "",
        "version": place.version or "",
        "kernel": own_name,
    }
    try:
        return template.format_map(values)
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{template!r} cannot be used ({error}); the fields are "
            + ", ".join(f"{{{each}}}" for each in values)
        ) from error


def default_name(menu: Menu, environment: str) -> str | None:
    """The kernel for new notebooks of who chose an environment: ``name:version``, or a prefix.

    Of several, Python's; then one of the image, which is what was chosen.
    """
    name = environment.partition(":")[0]
    fitting = [
        entry
        for entry in menu.entries.values()
        if name in (entry.environment.place.environment, entry.environment.place.prefix)
        and entry.is_healthy
    ]
    fitting.sort(key=lambda e: (e.environment.place.source != "image", e.own_name != "python3"))
    return fitting[0].name if fitting else None

"""Finds the people of a class roster: by login name, e-mail address or number, many at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from commons.directory_names import prepared

from .accounts import (
    check_standing,
    clean_login,
    escape_filter_value,
    hub_name,
    login_forms,
    read_account,
)
from .entry import Entry, Searcher
from .errors import AccountBarred, AccountUnusable
from .settings import DirectorySettings
from .standing import STANDING_ATTRIBUTES

# An attribute and its value; and who has it, by DN.
_Value = tuple[str, str]
_Known = dict[_Value, dict[str, Entry]]

# How many values one filter asks for: slapd and AD take some thousand terms, slowly.
_CHUNK = 50
# More entries than these values should have; then they are asked for in halves.
_MAX_ENTRIES = 2 * _CHUNK
# Of many people with one address, these are named.
_MAX_NAMES = 5


@dataclass(frozen=True)
class Asked:
    """Whom a line of a roster means; any of the three, the others empty."""

    username: str = ""
    mail: str = ""
    number: str = ""


class Fit(StrEnum):
    """What the directory says to a line.

    AMBIGUOUS: several people fit all that is asked, or share the login name. CONFLICTING: what
    is asked names different people. UNUSABLE: there is one who could not work here: disabled,
    expired, without a uid, or with a name that is none here.
    """

    FOUND = "found"
    UNKNOWN = "unknown"
    AMBIGUOUS = "ambiguous"
    CONFLICTING = "conflicting"
    UNUSABLE = "unusable"


@dataclass(frozen=True)
class Match:
    """Who was found: names as the hub has them; first whom the login name means, then the mail.

    One where ``fit`` is FOUND, none where it is UNKNOWN; who has no name that could be one here
    is not among them.
    """

    fit: Fit
    names: tuple[str, ...] = ()


class Roster:
    """The lines of one roster: what to search for, and what the answers mean."""

    def __init__(self, asked: Sequence[Asked], settings: DirectorySettings) -> None:
        self._settings = settings
        self._lines = [list(self._forms(line)) for line in asked]
        values = dict.fromkeys(value for line in self._lines for forms in line for value in forms)
        self._terms = [f"({name}={escape_filter_value(text)})" for name, text in values]
        self._compared = list(dict.fromkeys(name for name, _ in values))
        # No more than tells who it is and whether they could work here.
        names = [settings.name_attribute, settings.uid_attribute, settings.gid_attribute]
        names += [*self._compared, *STANDING_ATTRIBUTES[settings.server_type]]
        self._attributes = list(dict.fromkeys(names))

    def _forms(self, asked: Asked) -> Iterator[list[_Value]]:
        """How what is asked may be written in the directory, for each thing that is asked."""
        settings = self._settings
        name = clean_login(asked.username)
        if name and (forms := login_forms(settings, name)):
            yield [(settings.name_attribute, form) for form in forms]
        for attribute, asked_text in (
            (settings.mail_attribute, asked.mail),
            (settings.number_attribute, asked.number),
        ):
            if attribute and (text := clean_login(asked_text)):
                yield [(attribute, text)]

    @property
    def batches(self) -> list[list[str]]:
        """The filters, as many together as one search asks for."""
        return [self._terms[start : start + _CHUNK] for start in range(0, len(self._terms), _CHUNK)]

    def search(self, searcher: Searcher, terms: Sequence[str]) -> list[Entry]:
        """The people who could log in and fit any of the terms; of a single term, not all."""
        # Not a list, a printer or a contact that has an address too.
        settings = self._settings
        people = (
            f"({settings.name_attribute}=*)"
            if settings.user_dn_templates
            else settings.user_filter.replace("{login}", "*")
        )
        entries = searcher.search(
            settings.user_base_dn,
            f"(&{people}(|{''.join(terms)}))",
            self._attributes,
            limit=_MAX_ENTRIES,
        )
        if len(entries) <= _MAX_ENTRIES or len(terms) == 1:
            return entries
        half = len(terms) // 2
        return self.search(searcher, terms[:half]) + self.search(searcher, terms[half:])

    def matches(self, entries: Sequence[Entry]) -> list[Match]:
        """What the entries of all batches say to each line, in the order of the lines."""
        known: _Known = {}
        for entry in entries:
            for attribute in self._compared:
                for value in entry.values(attribute):
                    text = prepared(value.decode("utf-8", "surrogateescape"))
                    known.setdefault((attribute, text), {})[entry.dn] = entry
        return [self._match(line, known) for line in self._lines]

    def _match(self, line: Sequence[Sequence[_Value]], known: _Known) -> Match:
        people: dict[str, Entry] = {}
        shared = False
        for forms in line:
            fit: dict[str, Entry] = {}
            for attribute, text in forms:
                fit |= known.get((attribute, prepared(text)), {})
                # Who shares a login name cannot log in: no address tells them apart.
                shared |= attribute == self._settings.name_attribute and len(fit) > 1
            both = {dn: entry for dn, entry in people.items() if dn in fit}
            if people and fit and not both:
                return Match(Fit.CONFLICTING, self._names([*people.values(), *fit.values()]))
            people = both or people or fit
        entries = list(people.values())
        if not entries:
            return Match(Fit.UNKNOWN)
        if shared or len(entries) > 1:
            outcome = Fit.AMBIGUOUS
        else:
            outcome = Fit.FOUND if self._usable(entries[0]) else Fit.UNUSABLE
        return Match(outcome, self._names(entries))

    def _names(self, entries: Sequence[Entry]) -> tuple[str, ...]:
        names = []
        for entry in entries:
            try:
                names.append(hub_name(entry, self._settings))
            except AccountUnusable:
                continue
        return tuple(dict.fromkeys(names))[:_MAX_NAMES]

    def _usable(self, entry: Entry) -> bool:
        """Whether they may come at all: a lock and a password to change pass."""
        try:
            read_account(entry, self._settings)
            check_standing(entry, self._settings)
        except AccountUnusable:
            return False
        except AccountBarred as barred:
            return not barred.dismissal
        return True

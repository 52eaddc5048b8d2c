"""``labcommons quota``: who may use how many GPUs, for how long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import click
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from sqlalchemy.orm import Session

from commons.scopes import DEFAULT, own_account
from commons.site import load_site
from spawner.gpu import what_if
from spawner.gpu.cli.tools import (
    as_json,
    operator,
    print_json,
    print_table,
    read,
    refusals,
    short,
    write,
)
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import (
    check_names,
    check_spec,
    endless,
    read_document,
    show_value,
    to_document,
    to_yaml,
)
from spawner.gpu.quotas.explain import settings_for
from spawner.gpu.quotas.problems import Problem
from spawner.gpu.views import iso


@click.group()
def quota() -> None:
    """Limits on GPUs. A change has effect at once and never ends what runs.

    SUBJECT is default, settings, user:NAME, group:NAME or course:NAME.

    \b
    Examples:
      labcommons quota apply -f quotas.yaml --dry-run
      labcommons quota set group:vision grp_gpus=4 time_limit=8h
      labcommons quota explain alice
    """


@quota.command()
@click.option(
    "-f",
    "--file",
    type=click.File(encoding="utf-8"),
    required=True,
    help="The document; - for standard input.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--prune/--no-prune",
    default=False,
    show_default=True,
    help="Remove subjects that the file does not name.",
)
@click.option("--strict", is_flag=True, help="Refuse people and GPU types that are not known yet.")
@as_json
def apply(file: TextIO, dry_run: bool, prune: bool, strict: bool, as_json: bool) -> None:
    """Make the quotas what a document says, in one transaction, and show what changes.

    \b
    Examples:
      labcommons quota apply -f quotas.yaml --dry-run
      labcommons quota export | labcommons quota apply -f - --prune

    Exit 1 when the document is wrong; then nothing is changed.
    """
    try:
        text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file.name}: not readable as UTF-8 text: {error}") from error
    with refusals():
        specs = read_document(text, file.name)
    site, by = load_site(), operator()

    def work(
        session: Session,
    ) -> tuple[
        tuple[Problem, ...], tuple[quota_store.Change, ...], list[str], what_if.Effects | None
    ]:
        people, models = quota_store.people(session), quota_store.models(session)
        warnings = check_names(specs, site, people, models, strict)
        old = quota_store.specs(session)
        new = specs if prune else {**old, **specs}
        warnings += endless(new)
        kept = [] if prune else [subject for subject in old if subject not in specs]
        if dry_run:
            effects = what_if.look(session, new, time.time())
            return warnings, quota_store.diff(old, specs, prune), kept, effects
        return warnings, quota_store.apply(session, specs, by, prune), kept, None

    warnings, changes, kept, effects = (read if dry_run else write)(work)
    for warning in warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        print_json(
            {
                "applied": not dry_run,
                "effects": effects and effects.as_json(),
                "changes": [vars(change) for change in changes],
                "warnings": [warning.as_json() for warning in warnings],
                "kept": kept,
            }
        )
        return
    click.echo(quota_store.show_changes(changes) or "Nothing changes.")
    if kept:
        click.echo(f"Not in the file, stays (--prune removes it): {', '.join(kept)}")
    for line in _said(effects) if effects and changes else ():
        click.echo(line)
    if changes:
        click.echo("Not applied (--dry-run)." if dry_run else "Applied.")


def _said(effects: what_if.Effects) -> Iterator[str]:
    """What a change would do now, in lines."""
    for words, claims in (
        ("Starts at once", effects.starts),
        ("Would wait, and starts now without this", effects.stays),
        ("Has to give borrowed GPUs back", effects.ends),
    ):
        if claims:
            yield f"{words}: {', '.join(f'{one.user} ({one.gpus})' for one in claims)}"
    for one in effects.moved:
        before, after = short(one.before), short(one.after)
        yield f"Expected start of {one.claim.user}: {before} -> {after}"


@quota.command()
@click.argument("subject", required=False)
@as_json
def show(subject: str | None, as_json: bool) -> None:
    """What is set, for all subjects or one.

    \b
    Example:
      labcommons quota show group:vision
    """
    found = read(quota_store.specs)
    if subject:
        check_subject(subject)
        found = {subject: found.get(subject, {})}
    if as_json:
        print_json(found)
    elif not any(found.values()):
        whom = f" for {subject}" if subject else ""
        click.echo(f"No quotas are set{whom}. See “labcommons quota set --help”.")
    else:
        for one, spec in found.items():
            click.echo(one)
            for key, value in spec.items():
                click.echo(f"  {key}: {show_value(value)}")


@quota.command()
@click.argument("user")
@click.option("--account", help="Charged to this subject; by default the person.")
@as_json
def explain(user: str, account: str | None, as_json: bool) -> None:
    """Which limits hold for a person, and where each comes from.

    \b
    Examples:
      labcommons quota explain alice
      labcommons quota explain alice --account group:vision
    """
    account = account or own_account(user)
    check_subject(account)
    found = settings_for(read(quota_store.specs), user, account)
    if as_json:
        print_json({"user": user, "account": account, "limits": [vars(one) for one in found]})
    elif not found:
        click.echo(f"No limits hold for {user} (charged to {account}).")
    else:
        print_table(
            ("KEY", "VALUE", "FROM", "INSTEAD OF"),
            [(s.key, show_value(s.value), s.source, ", ".join(s.hidden) or "-") for s in found],
        )


@quota.command("set")
@click.argument("subject")
@click.argument("settings", nargs=-1, required=True, metavar="KEY=VALUE...")
@as_json
def set_(subject: str, settings: tuple[str, ...], as_json: bool) -> None:
    """Set keys of one subject; keys below others are written with a dot.

    \b
    Examples:
      labcommons quota set default max_gpus=1 time_limit=12h
      labcommons quota set group:vision grp_gpus=4 max_by_type.A100=2
      labcommons quota set course:ml101 budget.gpu_hours=20 budget.window=total
    """
    site, by = load_site(), operator()
    wanted = [_assignment(setting) for setting in settings]

    def work(session: Session) -> tuple[quota_store.Change, ...]:
        check_subject(subject)
        spec = quota_store.specs(session).get(subject, {})
        for path, value in wanted:
            spec = _with(spec, path, value)
        spec = check_spec(subject, spec)
        for warning in check_names(
            {subject: spec}, site, quota_store.people(session), quota_store.models(session)
        ):
            click.echo(f"Warning: {warning}", err=True)
        return _change(session, subject, spec, by)

    _say(write(work), as_json)


@quota.command()
@click.argument("subject")
@click.argument("keys", nargs=-1, metavar="[KEY...]")
@click.option("--all", "everything", is_flag=True, help="Remove all that is said of the subject.")
@as_json
def unset(subject: str, keys: tuple[str, ...], everything: bool, as_json: bool) -> None:
    """Remove keys of one subject, so that the next in the precedence holds.

    \b
    Examples:
      labcommons quota unset group:vision grp_gpus idle.after
      labcommons quota unset user:alice --all
    """
    if bool(keys) == everything:
        raise click.UsageError("name the keys to remove, or --all")
    by = operator()

    def work(session: Session) -> tuple[quota_store.Change, ...]:
        check_subject(subject)
        spec = quota_store.specs(session).get(subject, {})
        for key in spec if everything else keys:
            spec = _with(spec, key.split("."), None)
        return _change(session, subject, check_spec(subject, spec), by)

    _say(write(work), as_json)


@quota.command()
@click.argument("subject", required=False)
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@as_json
def history(subject: str | None, limit: int, as_json: bool) -> None:
    """Who changed what and when, newest first.

    \b
    Example:
      labcommons quota history group:vision --limit 5
    """
    rows = read(lambda session: quota_store.history(session, subject, limit))
    if as_json:
        print_json(
            [
                {
                    "at": iso(row.at),
                    "by": row.by,
                    "subject": row.subject,
                    "before": row.before,
                    "after": row.after,
                }
                for row in rows
            ]
        )
        return
    if not rows:
        click.echo("No quota has been changed yet.")
    for row in rows:
        click.echo(f"{short(row.at)} UTC  {row.by}  {row.subject}")
        before, after = {row.subject: row.before or {}}, {row.subject: row.after or {}}
        for change in quota_store.diff(before, after):
            click.echo(f"  {change}")


@quota.command()
@as_json
def export(as_json: bool) -> None:
    """What is set as a document that ``quota apply`` takes.

    \b
    Example:
      labcommons quota export > quotas.yaml
    """
    found = read(quota_store.specs)
    if as_json:
        print_json(to_document(found))
    else:
        click.echo(to_yaml(found), nl=False)


def check_subject(subject: str) -> None:
    """Refuse what is not a subject."""
    with refusals():
        check_spec(subject, {})


def _change(
    session: Session, subject: str, spec: dict[str, Any], by: str
) -> tuple[quota_store.Change, ...]:
    """Make one subject what is said, with a warning where leases have no end by it."""
    for warning in endless({subject: spec}) if subject == DEFAULT else ():
        click.echo(f"Warning: {warning}", err=True)
    return quota_store.apply(session, {subject: spec}, by)


def _say(changes: tuple[quota_store.Change, ...], as_json: bool) -> None:
    if as_json:
        print_json({"changes": [vars(change) for change in changes]})
    else:
        click.echo(quota_store.show_changes(changes) or "Nothing changes: it is so already.")


def _assignment(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not key or not value:
        raise click.UsageError(f"{text!r} is not KEY=VALUE, such as grp_gpus=4")
    try:
        # As the document would read it: 4 is a number, 8h text, true a truth.
        return key.split("."), YAML(typ="safe", pure=True).load(value)
    except YAMLError as error:
        raise click.UsageError(f"{text!r}: the value cannot be read") from error


def _with(spec: Mapping[str, Any], path: list[str], value: Any) -> dict[str, Any]:
    """A spec with one key set; None removes it, and what is empty then."""
    key, *rest = path
    inner = spec.get(key)
    if rest:
        value = _with(inner if isinstance(inner, dict) else {}, rest, value) or None
    changed = {**spec, key: value}
    return {one: item for one, item in changed.items() if item is not None}

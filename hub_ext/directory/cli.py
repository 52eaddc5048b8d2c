"""``labcommons ldap``: look at the directory as the hub does, without the hub."""

from __future__ import annotations

import asyncio
import json
import logging
import sys

import click
from traitlets.config import Config

from commons.errors import in_terminal
from commons.i18n import gettext_for, terminal_language
from commons.site import Site, load_site
from commons.store import Store

from .client import Directory
from .errors import DirectoryError, SettingsError
from .from_site import configure_from_site
from .memory import release as release_name
from .report import Finding, Report, check, unknown
from .roles import check_admitted, groups_named, roles_of
from .traits import DirectoryTraits

_MARKS = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}
_log = logging.getLogger("labcommons.ldap")


class DirectoryOfSite:
    """The settings as the hub would have them, without its hooks and database."""

    def __init__(self, site: Site | None = None) -> None:
        config = Config()
        configure_from_site(config, site or load_site())
        traits = DirectoryTraits(config=Config({"DirectoryTraits": config.LDAPAuthenticator}))
        try:
            self.settings = traits.directory_settings()
            self.roles = traits.role_map()
            self.directory = Directory(self.settings, _log)
        except SettingsError as error:
            raise click.ClickException(in_terminal(error)) from error

    def unknown_groups(self) -> list[Finding]:
        """About groups that the directory does not have. Raises DirectoryError."""
        named = groups_named(self.roles)
        return unknown(named, asyncio.run(self.directory.unknown_groups(named)))


@click.group()
def ldap() -> None:
    """Look at the directory as the hub does.

    \b
    Examples:
      labcommons ldap check alice
      labcommons ldap login alice
    """


@ldap.command("check")
@click.argument("user", required=False)
@click.option("--json", "as_json", is_flag=True, help="All findings as JSON.")
def check_command(user: str | None, as_json: bool) -> None:
    """Connect to every server; say what USER would get, or why they would be refused.

    Exit 1 when anything is wrong.
    """
    site = DirectoryOfSite()
    report = asyncio.run(check(site.directory, site.settings, site.roles, user, _log))
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        _print(report, user)
    raise SystemExit(0 if report.right else 1)


@ldap.command()
@click.argument("user")
@click.option("--password-stdin", is_flag=True, help="Read the password's line from stdin.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
def login(user: str, password_stdin: bool, as_json: bool) -> None:
    """Try USER's password at the directory, without the hub and its throttle.

    The directory counts a wrong one. Exit 1 when refused.
    """
    site = DirectoryOfSite()
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, err=True)
    try:
        person = asyncio.run(site.directory.login(user, password))
        check_admitted(person.groups, site.roles)
    except DirectoryError as error:
        if as_json:
            told = error.message.as_json()
            refused = {"reason": error.outcome, "text": str(error)}
            more = {"code": told["code"], "data": told["data"]}
            click.echo(json.dumps({"let_in": False, **refused, **more}))
            raise SystemExit(1) from None
        raise click.ClickException(f"refused: {error.outcome}: {error}") from error
    roles = roles_of(person.groups, site.roles)
    if as_json:
        found = {"let_in": True, "name": person.name, "groups": list(roles.hub_groups)}
        click.echo(json.dumps({**found, **roles.as_json()}))
    else:
        click.echo(f"{person.name} ({person.account.dn}) would be let in.")


@ldap.command()
@click.argument("name", required=False)
@click.option("--all", "everybody", is_flag=True, help="All names: the directory was set up anew.")
def release(name: str | None, everybody: bool) -> None:
    """Free the hub's NAME for another person, after the home of the first was moved away.

    A running hub sees it at the next login with that name.
    """
    if bool(name) == everybody:
        raise click.UsageError("give a NAME, or --all")
    if not release_name(Store(), name):
        raise click.ClickException(f"nobody is remembered as {name!r}" if name else "nobody is")
    click.echo(f"{name or 'Every name'} is free: whoever logs in next with it keeps it.")


def _print(report: Report, user: str | None) -> None:
    for server, findings in report.servers.items():
        click.echo(server)
        _lines(findings)
    if user:
        click.echo(ascii(user))
        if report.person:
            _lines(report.person)
        else:
            click.echo("  WRONG not asked: no server answers")


def _lines(findings: list[Finding]) -> None:
    gettext = gettext_for(terminal_language())
    for finding in findings:
        text = finding.text.in_words(gettext)
        click.echo(f"  {_MARKS[finding.level]} {finding.topic}: {text}")
        if finding.remedy:
            click.echo(f"        -> {finding.remedy.in_words(gettext)}")

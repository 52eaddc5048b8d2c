"""``labcommons env verify|keys``: who has signed what images of environments were made of."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from commons.errors import in_terminal
from commons.signatures import dsse
from commons.signatures.check import OWN_KEY, Checker, Verdict, read_file
from commons.store import Store
from environments import catalog
from environments.catalog import CatalogEntry
from environments.cli.common import places, signatures, table

if TYPE_CHECKING:
    from environments.image import Images

_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_DATA = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The data folder.  [default: $LABCOMMONS_DATA]",
)
_STATES = {"signed": "signed", "unsigned": "not signed", "wrong": "WRONG"}


@dataclass(frozen=True)
class Checked:
    """A version, what is known of its signature, and whether the Engine's image was looked at."""

    entry: CatalogEntry
    verdict: Verdict
    image: str  # seen, gone, or not asked

    def as_json(self) -> dict[str, Any]:
        """JSON-ready data."""
        entry = self.entry
        return {
            "name": entry.name,
            "version": entry.version,
            "image_id": entry.image_id,
            "image": self.image,
            **self.verdict.as_json(),
        }


@click.command("verify")
@click.argument("version", metavar="[NAME[:VERSION]]", required=False)
@_JSON
@_DATA
def verify(version: str | None, as_json: bool, data: Path | None) -> None:
    """Check signatures: of one version, or of all that are known.

    Looks at the envelope, the lock, the bill of materials and, where the agent answers, at the
    image's own layers. Fails (1) where one is wrong, and, where the site starts signed images
    alone (signatures.policy: refuse), where one that is offered is not signed.

    \b
    Examples:
      labcommons env verify
      labcommons env verify py313-data:1.2.0 --json
    """
    checker = Checker(signatures(), places(data=data).data)
    images = _images()
    found = [_check(entry, checker, images) for entry in _entries(version)]
    if as_json:
        document = {
            "policy": checker.settings.policy,
            "keys": [key.id for key in checker.trusted()],
            "versions": [one.as_json() for one in found],
        }
        click.echo(json.dumps(document, indent=2))
    elif not found:
        click.echo("No environment was built yet.")
    else:
        rows = [
            [
                f"{one.entry.name}:{one.entry.version}",
                _STATES[one.verdict.state],
                one.verdict.key[:16] or "-",
                one.image,
                in_terminal(one.verdict.why) if one.verdict.why else "",
            ]
            for one in found
        ]
        click.echo(table(["VERSION", "SIGNATURE", "KEY", "IMAGE", ""], rows))
    bad = [one for one in found if _is_bad(one, checker)]
    if bad:
        raise click.ClickException(f"{len(bad)} of {len(found)} versions do not pass")


def _is_bad(one: Checked, checker: Checker) -> bool:
    state = one.verdict.state
    return state == "wrong" or (state == "unsigned" and checker.enforces and one.entry.is_offered)


def _entries(version: str | None) -> list[CatalogEntry]:
    from environments.cli.versions import entry_named

    if version:
        return [entry_named(version)]
    versions = Store().transact(catalog.newest, read=True)
    return [entry for entries in versions.values() for entry in entries]


def _images() -> Images | None:
    """The agent's images; None where there is no way to an agent."""
    from environments.image import Images

    return Images() if os.environ.get("LABCOMMONS_AGENT_URL") else None


def _check(entry: CatalogEntry, checker: Checker, images: Images | None) -> Checked:
    from environments.errors import BuildError
    from environments.signed import as_image

    image, seen = as_image(entry), "not asked"
    with suppress(BuildError):
        if images is not None:
            known = images.identity(entry.image_id)
            seen = "seen" if known else "gone"
            if known:
                image = replace(image, id=known.id, layers=known.layers)
    return Checked(entry, checker.files(image), seen)


@click.command("keys")
@_JSON
@_DATA
def keys(as_json: bool, data: Path | None) -> None:
    """The keys whose signatures count, and the one that the signer has now.

    For the site file, where another key is to come (docs/signatures.md), and for outsiders: the PEM
    is what OpenSSL checks with.

    \b
    Examples:
      labcommons env keys
      labcommons env keys --json
    """
    checker = Checker(signatures(), places(data=data).data)
    rows: list[dict[str, Any]] = [
        {
            "id": key.id,
            "public": dsse.in_site_file(key.key),
            "from": key.since.isoformat() if key.since else None,
            "until": key.until.isoformat() if key.until else None,
            "pem": dsse.as_pem(key.key).decode("ascii"),
        }
        for key in checker.trusted()
    ]
    own = None
    with suppress(OSError, ValueError):
        own = dsse.of_pem(read_file(checker.data / OWN_KEY, 4096))
    if as_json:
        signer = {"id": dsse.key_id(own), "public": dsse.in_site_file(own)} if own else None
        click.echo(json.dumps({"keys": rows, "signer": signer}, indent=2))
        return
    for row in rows:
        click.echo(f"{row['id'][:16]}  from {row['from'] or '-'}  until {row['until'] or '-'}")
        click.echo(f"  public: {row['public']}\n{row['pem']}")
    if own is None:
        click.echo("The service “signer” has not told its key yet: docker compose logs signer")
    elif dsse.key_id(own) not in [row["id"] for row in rows]:
        click.echo(
            "The signer's own key does not count: add it to signatures.keys in the site file:\n"
            f"  - public: {dsse.in_site_file(own)}"
        )


COMMANDS = (verify, keys)

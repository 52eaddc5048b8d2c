"""Versions that were built, against advisories that came later: marks, notices, what fixes it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from sqlalchemy import select

from commons import holes
from commons.site import EnvironmentScan
from commons.store import GpuNotice, ScopeEnvironment, Store
from commons.store.models import utcnow
from commons.store.usage import Started, add_starts
from environments import catalog
from environments.catalog import CatalogEntry
from environments.cli import builds
from environments.errors import BuildError
from environments.rescan import rescan
from environments.vulnerable import vulnerable

TODAY = date(2026, 11, 29)


def package(name: str, version: str, channel: str = "conda-forge") -> dict[str, str]:
    return {"name": name, "version": version, "build": "0", "channel": channel}


OLD = CatalogEntry(
    name="data",
    version="1",
    image="labcommons/env-data:1",
    image_id="sha256:1",
    prefix="/opt/conda/envs/data",
    python="3.9.1",
    lock_digest="d" * 64,
    channels=[],
    words={"title": "Data"},
    main_packages=[],
    packages=[package("pytorch", "2.0"), package("zlib", "1.3"), package("six", "1", "pypi")],
    kernelspecs={},
    created_at=datetime(2026, 5, 1),
)
NEW = replace(
    OLD,
    version="2",
    python="3.13.1",
    packages=[package("pytorch", "2.5")],
    created_at=datetime(2026, 6, 1),
)


def advisory(id: str, name: str, fixed: str, severity: str = "HIGH") -> dict[str, Any]:
    events = [{"introduced": "0"}, {"fixed": fixed}]
    return {
        "id": id,
        "summary": f"of {name}",
        "database_specific": {"severity": severity},
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": name},
                "ranges": [{"type": "ECOSYSTEM", "events": events}],
            }
        ],
    }


class Site:
    """A store, a folder of advisories, and who works with what."""

    def __init__(self, tmp_path: Path) -> None:
        self.data = tmp_path / "data"
        self.store = Store(f"sqlite:///{tmp_path}/labcommons.sqlite")
        self.store.migrate()
        self.advisories = tmp_path / "advisories"
        self.advisories.mkdir()

    def have(self, *entries: CatalogEntry) -> None:
        for entry in entries:
            self.store.transact(lambda session, entry=entry: catalog.record(session, entry))

    def use(self, user: str, version: str, source: str = "image", name: str = "data") -> None:
        started = [Started("python3", source, name, version, 1)]
        self.store.transact(lambda s: add_starts(s, user, started, utcnow()))

    def look(self, *documents: dict[str, Any], **decided: Any) -> dict[str, int]:
        (self.advisories / "osv.json").write_text(json.dumps(documents))
        settings = EnvironmentScan(advisories=self.advisories, **decided)
        return rescan(self.store, settings, self.data)

    def found(self) -> list[dict[str, Any]]:
        everything = self.store.transact(lambda s: vulnerable(s, TODAY), read=True)
        return [one.as_json() for one in everything]

    def notices(self) -> Sequence[GpuNotice]:
        def read(session: Any) -> list[GpuNotice]:
            return list(session.scalars(select(GpuNotice).order_by(GpuNotice.username)))

        return self.store.transact(read, read=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_version_with_a_new_hole_is_marked_and_its_users_are_told_once(site: Site) -> None:
    site.have(OLD, NEW)
    for user, version in (("alice", "1"), ("bob", "1"), ("carol", "2")):
        site.use(user, version)
    torch = advisory("PYSEC-1", "torch", "2.4")
    done = site.look(torch, advisory("PYSEC-2", "zlib", "9"))
    assert done == {"versions": 2, "advisories": 2, "holes": 1, "new": 1, "told": 2}
    [one] = site.found()
    assert (one["version"], one["people"], one["take"]) == ("1", ["alice", "bob"], "2")
    assert one["ask_for"] == ["torch >=2.4"]
    assert one["python_end"] == "2025-10-31"
    assert [hole["id"] for hole in one["holes"]] == ["PYSEC-1"]
    told = site.notices()
    assert [(row.username, row.code) for row in told] == [
        ("alice", "environment_holes"),
        ("bob", "environment_holes"),
    ]
    assert told[0].data == {"environment": "data 1", "holes": ["torch (PYSEC-1)"]}
    assert site.look(torch)["new"] == 0
    assert len(site.notices()) == 2


def test_what_is_known_by_a_bill_of_materials_counts_more_than_names(site: Site) -> None:
    site.have(NEW)
    folder = site.data / "versions" / "data" / "2"
    folder.mkdir(parents=True)
    components = [
        {"name": "torch", "version": "2.5", "purl": "pkg:pypi/torch@2.5"},
        {"name": "Inner.Part", "version": "0.1", "purl": "pkg:pypi/inner-part@0.1"},
        {"name": "six", "version": "1", "purl": "pkg:conda/six@1"},
    ]
    (folder / "sbom.cdx.json").write_text(json.dumps({"components": components}))
    assert (
        site.look(advisory("X-1", "inner-part", "0.2"), advisory("X-2", "six", "2"))["holes"] == 1
    )
    (folder / "sbom.cdx.json").write_text("[")
    assert site.look(advisory("X-1", "inner-part", "0.2"))["holes"] == 0


def test_a_hole_that_is_gone_or_let_be_is_no_more_there(site: Site) -> None:
    site.have(OLD, NEW)
    torch = advisory("PYSEC-1", "torch", "3")
    assert site.look(torch)["holes"] == 2
    assert {one["take"] for one in site.found()} == {""}
    assert site.look(torch, ignore={"PYSEC-1": "not here"})["holes"] == 0
    assert [one["version"] for one in site.found()] == ["1"]  # by its Python


def test_what_only_warns_is_listed_and_tells_nobody(site: Site) -> None:
    site.have(NEW)
    site.use("alice", "2")
    assert site.look(advisory("PYSEC-1", "torch", "3", "LOW"))["told"] == 0
    [one] = site.found()
    assert not one["blocks"]
    assert not site.notices()


def test_peoples_and_teams_environments_are_looked_at_too(site: Site) -> None:
    def build(session: Any) -> None:
        for scope, owner in (("personal", "alice"), ("team", "vision")):
            session.add(
                ScopeEnvironment(
                    scope=scope, owner=owner, name="mine", version="1", built_by="alice",
                    packages=[package("pytorch", "2.0")], kernels={}, findings=[], exports={},
                )
            )  # fmt: skip

    site.store.transact(build)
    site.use("alice", "1", "personal", "mine")
    site.use("bob", "1", "team-vision", "mine")
    site.use("bob", "1", "personal", "mine")  # his own, of which nothing is known
    assert site.look(advisory("PYSEC-1", "torch", "3"))["told"] == 2
    assert [(one["source"], one["owner"], one["people"]) for one in site.found()] == [
        ("personal", "alice", ["alice"]),
        ("team-vision", "", ["bob"]),
    ]


def test_advisories_that_cannot_be_read_leave_what_was_found(site: Site) -> None:
    site.have(OLD)
    site.look(advisory("PYSEC-1", "torch", "3"))
    (site.advisories / "broken.json").write_text("{")
    with pytest.raises(BuildError):
        site.look(advisory("PYSEC-1", "torch", "3"))
    assert site.store.transact(lambda s: len(holes.everything(s)), read=True) == 1


def test_old_use_is_no_use(site: Site) -> None:
    site.have(NEW)
    then = utcnow() - timedelta(40)
    started = [Started("python3", "image", "data", "2", 1)]
    site.store.transact(lambda s: add_starts(s, "alice", started, then))
    assert site.look(advisory("PYSEC-1", "torch", "3"))["told"] == 0


def test_the_command_says_what_to_do(site: Site, tmp_path: Path) -> None:
    site.have(OLD, NEW)
    site.look(advisory("PYSEC-1", "torch", "2.4"))
    variables = {"LABCOMMONS_DATABASE_URL": site.store.url, "LABCOMMONS_SITE_FILE": None}
    done = CliRunner(env=variables).invoke(builds.env, ["vulnerable"])
    assert done.exit_code == 0, done.output
    assert "image/data:1  refused  1 holes; Python 3.9.1, without fixes" in done.stdout
    assert "take data:2" in done.stdout
    found = json.loads(CliRunner(env=variables).invoke(builds.env, ["vulnerable", "--json"]).stdout)
    assert found["vulnerable"][0]["ask_for"] == ["torch >=2.4"]
    refused = CliRunner(env=variables).invoke(builds.env, ["vulnerable", "--scan"])
    assert refused.exit_code == 1
    assert "names no advisories" in refused.output

"""Filling the mirror with what locks name, before it is cut off; and trying its upstreams."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from commons.site import Site
from environments.lock import Lock, LockedPackage
from environments.mirror import check, fill
from environments.mirror.cli import mirror as command
from environments.packages import PipPackage
from rig.nginx_mirror import LocalMirror, mirrored
from rig.upstream import Upstream

CHANNEL = "https://conda.anaconda.org/lab/"


@pytest.fixture
def lock(there: Upstream, tmp_path: Path) -> Lock:
    """Names a, b and the wheel, as locks do: by where they come from in the end."""
    packages = [
        LockedPackage(name, "1.0", "0", f"{CHANNEL}noarch/{name}-1.0-0.conda",
                      _sha256(there.folder / f"lab/noarch/{name}-1.0-0.conda"), CHANNEL, "noarch")
        for name in ("a", "b")
    ]  # fmt: skip
    wheel = next(there.folder.rglob("tiny-1.0*.whl"))
    url = f"https://files.pythonhosted.org/{wheel.relative_to(there.folder)}"
    pip = PipPackage("tiny", "1.0", url, _sha256(wheel), (), "")
    return Lock(tmp_path / "pixi.lock", "", "", (CHANNEL,), tuple(packages), (pip,))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _fill(mirror: LocalMirror, lock: Lock) -> fill.Filled:
    items, left_out = fill.items_of([lock], mirror.site)
    assert not left_out
    return fill.fill(items, lambda _: None, mirror.control)


def test_all_that_a_lock_names_is_there_when_the_site_is_cut_off(
    mirror: LocalMirror, there: Upstream, lock: Lock
) -> None:
    first = _fill(mirror, lock)
    assert first.is_whole, first.failed
    assert first.fetched >= 5  # packages, wheel, index, page
    there.cut()
    again = _fill(mirror, lock)
    assert again.is_whole, again.failed
    assert again.fetched == 0
    for path in ("/conda/lab/noarch/b-1.0-0.conda", "/conda/lab/noarch/repodata.json.zst",
                 "/pypi/simple/tiny/"):  # fmt: skip
        assert mirror.get(path).status == 200


def test_other_bytes_that_are_kept_already_give_way_to_the_right_ones(
    mirror: LocalMirror, there: Upstream, lock: Lock
) -> None:
    path = "/conda/lab/noarch/a-1.0-0.conda"
    there.how = {"a-1.0-0.conda": "other"}
    wrong = mirror.get(path).body  # somebody asked, who knows no digest
    assert mirror.get(path).cache == "HIT"
    refused = _fill(mirror, lock)
    assert list(refused.failed) == [path]
    there.how = {}
    mirror.service.fetcher._bad.clear()  # ten minutes later
    filled = _fill(mirror, lock)
    assert filled.is_whole, filled.failed
    assert mirror.get(path).body != wrong


def test_it_stops_where_nothing_can_be_had_any_more(
    mirror: LocalMirror, there: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fill, "STOP_AFTER", 3)
    there.cut()
    items = [fill.Item(f"/conda/lab/noarch/p{n}-1.0-0.conda", "0" * 64) for n in range(200)]
    filled = fill.fill(items, lambda _: None, mirror.control)
    assert filled.stopped
    assert len(filled.failed) < 50


def test_what_does_not_go_through_the_mirror_is_named(lock: Lock, site: Site) -> None:
    other = "https://conda.lab.example/private/noarch/x-1-0.conda"
    private = LockedPackage("x", "1", "0", other, "0" * 64, "https://conda.lab.example/private/")
    both = Lock(lock.path, "", "", (CHANNEL,), (*lock.packages, private))
    here = Site.model_validate(
        {**site.model_dump(exclude={"mirror"}), "mirror": {"channels": ["lab"]}}
    )
    _, left_out = fill.items_of([both], here)
    assert left_out == [other]


def test_locks_of_a_site_are_those_beside_specs_and_those_that_are_kept(tmp_path: Path) -> None:
    environments, data = tmp_path / "environments", tmp_path / "data"
    for path in (environments / "one", data / "locks/two", data / "versions/one/1"):
        path.mkdir(parents=True)
        (path / "pixi.lock").touch()
    (environments / "three").mkdir()
    assert len(fill.locks_of(environments, data)) == 3


def test_upstreams_are_tried_and_timed(site: Site, there: Upstream) -> None:
    dead = Upstream(there.folder)
    dead.start()
    dead.cut()
    there.add_wheel("pip", b"PK", "pip-1.0-py3-none-any.whl")
    rows = check.everything(mirrored(site, dead, there, images=there.url))
    assert [(one.what, bool(one.problem)) for one in rows] == [
        ("lab", True), ("lab", False), ("PyPI", True), ("PyPI", False), ("images", True),
    ]  # fmt: skip
    assert all(one.milliseconds for one in rows if not one.problem)
    assert check.silent(rows) == ["images"]
    there.how = {".json": "html", ".zst": "html"}
    assert "login page" in check.tried("lab", f"{there.url}/lab").problem


def test_the_one_that_answers_sooner_is_named() -> None:
    slow, quick = check.Tried("lab", "far", "", 900), check.Tried("lab", "near", "", 30)
    assert list(check.faster([slow, quick])) == [(quick, slow)]
    assert not list(check.faster([quick, slow]))


def test_a_site_without_a_mirror_says_how_to_have_one(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(site.model_dump_json(exclude={"mirror"}))
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(file))
    result = CliRunner().invoke(command, ["show"])
    assert result.exit_code == 1
    assert "COMPOSE_PROFILES" in result.output


def test_what_was_saved_is_shown(
    mirror: LocalMirror, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "site.yaml"
    document = site.model_dump(exclude={"mirror"}) | {"mirror": {}}
    file.write_text(json.dumps(document, default=str))
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(file))
    monkeypatch.setenv("LABCOMMONS_DATA", str(tmp_path / "data"))
    mirror.service.counts.line(
        '{"cache":"HIT","bytes":1048576,"status":200,"uri":"/conda/lab/noarch/a-1.0-0.conda"}'
    )
    mirror.service.write()
    shown = CliRunner().invoke(command, ["show"])
    assert shown.exit_code == 0, shown.output
    assert "Saved: 1" in shown.output
    told = json.loads(CliRunner().invoke(command, ["show", "--json"]).output)
    assert told["saved"] == 1048576
    assert told["runs"]

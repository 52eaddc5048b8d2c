"""nginx as it is configured, and the fetcher, before an upstream that misbehaves on command."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from commons.site import Site
from rig.channel import TinyChannel
from rig.nginx_mirror import LIMITS, LocalMirror, local_mirror, mirrored
from rig.upstream import Upstream, upstream

PACKAGE = "/conda/lab/noarch/a-1.0-0.conda"
INDEX = "/conda/lab/noarch/repodata.json"


def test_forty_who_ask_for_one_package_are_one_fetch(mirror: LocalMirror, there: Upstream) -> None:
    there.pause = 0.3
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: mirror.get(PACKAGE), range(40)))
    assert {answer.status for answer in answers} == {200}
    assert {answer.body for answer in answers} == {_bytes(there, "/lab/noarch/a-1.0-0.conda")}
    assert there.asked["/lab/noarch/a-1.0-0.conda"] == 1


def test_what_was_had_is_had_when_upstream_is_gone(mirror: LocalMirror, there: Upstream) -> None:
    assert mirror.get(PACKAGE).cache == "MISS"
    assert mirror.get(INDEX).status == mirror.get("/pypi/simple/tiny/").status == 200
    there.cut()
    assert mirror.get(PACKAGE).cache == "HIT"
    assert mirror.get(INDEX).status == mirror.get("/pypi/simple/tiny/").status == 200
    assert mirror.get("/conda/lab/noarch/b-1.0-0.conda").status == 502


def test_an_old_index_is_asked_for_again_and_given_out_where_nobody_answers(
    site: Site, there: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("environments.mirror.routes.INDEX", 1)
    path = "/lab/noarch/repodata.json"
    with local_mirror(mirrored(site, there), tmp_path / "data", LIMITS) as mirror:
        first = mirror.get(INDEX)
        asked = _until(mirror, INDEX, lambda cache: cache == "REVALIDATED")
        assert there.asked[path] == 2
        assert there.headers[path]["If-None-Match"]
        assert asked == first.body
        there.cut()
        assert _until(mirror, INDEX, lambda cache: cache == "STALE") == first.body


def _until(mirror: LocalMirror, path: str, right: Callable[[str], bool]) -> bytes:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        got = mirror.get(path)
        assert got.status == 200
        if right(got.cache):
            return got.body
        time.sleep(0.1)
    raise AssertionError(f"it stays {got.cache}")


@pytest.mark.parametrize(
    ("how", "path"),
    [
        ("html", PACKAGE),
        ("html", INDEX),
        ("html", "/pypi/simple/tiny/"),
        ("loop", PACKAGE),
        ("loop", INDEX),
        ("error", PACKAGE),
        ("hangs", PACKAGE),
        ("private", PACKAGE),
    ],
)
def test_what_is_no_package_is_refused_and_not_kept(
    how: str, path: str, mirror: LocalMirror, there: Upstream
) -> None:
    there.how = {path.rpartition("/")[2] or "/tiny/": how}
    refused = mirror.get(path)
    assert refused.status == 502, refused.body
    assert b"log in to this network" not in refused.body
    there.how = {}
    assert mirror.get(path).status == 200


@pytest.mark.parametrize("how", ["truncate", "slow"])
def test_what_is_cut_off_or_never_ends_is_not_kept(
    how: str, mirror: LocalMirror, there: Upstream
) -> None:
    there.how = {".conda": how}
    with suppress(IncompleteRead, OSError):
        assert mirror.get(PACKAGE).status == 502  # where all of it was looked at before
    there.how = {}
    whole = mirror.get(PACKAGE)
    assert whole.cache == "MISS"
    assert whole.body == _bytes(there, "/lab/noarch/a-1.0-0.conda")


def test_a_redirect_is_followed_inside_and_its_signature_is_in_no_name(
    mirror: LocalMirror, there: Upstream
) -> None:
    there.how = {".conda": "elsewhere"}
    first, second = mirror.get(PACKAGE), mirror.get(f"{PACKAGE}?X-Amz-Signature=abc")
    assert (first.status, second.cache) == (200, "HIT")
    assert there.asked["/lab/noarch/a-1.0-0.conda"] == 2  # with its redirect


def test_nothing_of_who_asks_goes_out_and_what_they_ask_with_a_login_is_not_kept(
    mirror: LocalMirror, there: Upstream
) -> None:
    asked = mirror.get(PACKAGE, Authorization="Bearer secret", Cookie="a=secret")
    assert asked.status == 200
    assert "secret" not in json.dumps(there.headers)
    assert mirror.get(PACKAGE).cache == "MISS"
    assert mirror.get(PACKAGE).cache == "HIT"


def test_what_is_not_there_is_asked_for_again_soon(
    site: Site, there: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("environments.mirror.fetch.NOT_THERE", 1)
    channel = TinyChannel(tmp_path / "upstream" / "lab")
    with local_mirror(mirrored(site, there), tmp_path / "data", LIMITS) as mirror:
        path = "/conda/lab/noarch/c-1.0-0.conda"
        assert [mirror.get(path).status for _ in range(3)] == [404] * 3
        assert there.asked["/lab/noarch/c-1.0-0.conda"] == 1
        channel.add("c")
        for _ in range(100):
            if mirror.get(path).status == 200:
                break
            time.sleep(0.1)
        else:
            raise AssertionError("it stays away")


@pytest.mark.parametrize(
    "path",
    ["/", "/conda/other/noarch/repodata.json", "/conda/lab/noarch/../../secret", "/pypi/",
     "/conda/lab/noarch/%2e%2e/%2e%2e/secret.conda", "/conda/lab/noarch/evil.html",
     "/pypi/packages/aa/bb/short/x.whl", "/pypi/at/9/x.whl"],
)  # fmt: skip
def test_nothing_else_is_offered(path: str, mirror: LocalMirror, there: Upstream) -> None:
    assert mirror.get(path).status == 404
    assert not there.asked


def test_what_is_asked_of_the_second_place_is_what_the_first_does_not_have(
    site: Site, there: Upstream, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with (
        upstream(tmp_path / "empty") as near,
        local_mirror(mirrored(site, near, there), tmp_path / "data", LIMITS) as mirror,
    ):
        assert mirror.get(PACKAGE).status == 200
        assert near.asked["/lab/noarch/a-1.0-0.conda"] == 1
        near.cut()
        assert mirror.get("/conda/lab/noarch/b-1.0-0.conda").status == 200
        assert mirror.known()["places"][f"127.0.0.1:{near.port}"]["problem"]


def test_a_file_of_pypis_with_other_bytes_than_its_address_says_is_never_given_out_whole(
    mirror: LocalMirror, there: Upstream
) -> None:
    path = next(str(file.relative_to(there.folder)) for file in there.folder.rglob("tiny-1.0*.whl"))
    there.how = {".whl": "other"}
    with pytest.raises((IncompleteRead, OSError)):
        mirror.get(f"/pypi/{path}")
    there.how = {}
    assert mirror.get(f"/pypi/{path}").status == 502  # its place is not asked for it just now


def test_other_bytes_are_refused_where_the_lock_says_what_they_have_to_be(
    mirror: LocalMirror, there: Upstream
) -> None:
    right = hashlib.sha256(_bytes(there, "/lab/noarch/a-1.0-0.conda")).hexdigest()
    there.how = {".conda": "other"}
    with pytest.raises((IncompleteRead, OSError)):
        mirror.get(PACKAGE, control=True, X_LabCommons_Sha256=right)
    # A server cannot say it, nor have anything asked for anew.
    there.how = {}
    assert mirror.get(f"{PACKAGE}", X_LabCommons_Sha256="0" * 64).status == 502
    mirror.service.fetcher._bad.clear()
    assert mirror.get(PACKAGE, X_LabCommons_Sha256="0" * 64, X_LabCommons_Anew="1").cache == "MISS"
    assert mirror.get(PACKAGE, X_LabCommons_Anew="1").cache == "HIT"
    assert mirror.get(PACKAGE, control=True, X_LabCommons_Anew="1").cache == "BYPASS"


def test_pip_installs_from_it_and_again_without_upstream(
    mirror: LocalMirror, there: Upstream, tmp_path: Path
) -> None:
    def install(folder: str) -> None:
        words = ["install", "--no-cache-dir", "--disable-pip-version-check", "--isolated", "-q"]
        subprocess.run(
            [sys.executable, "-m", "pip", *words, "--index-url", f"{mirror.url}/pypi/simple",
             "--target", str(tmp_path / folder), "tiny"],
            check=True, timeout=120,
        )  # fmt: skip
        assert (tmp_path / folder / "tiny.py").exists()

    install("first")
    there.cut()
    install("second")
    counted = mirror.known()["kinds"]["pypi"]
    assert counted["hits"] >= 2
    assert counted["from_cache"] > 0


def test_rattler_solves_and_installs_from_it_and_again_without_upstream(
    mirror: LocalMirror, there: Upstream, tmp_path: Path
) -> None:
    def install(folder: str) -> None:
        code = f"""
import asyncio
from rattler import Channel, Client, Gateway, install, solve
async def main():
    records = await solve(sources=[Channel("{mirror.url}/conda/lab")], specs=["b"],
                          platforms=["noarch"], gateway=Gateway(cache_dir="{tmp_path / folder}-c"))
    await install(records, target_prefix="{tmp_path / folder}", cache_dir="{tmp_path / folder}-p")
asyncio.run(main())
import os; os._exit(0)
"""
        subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
        assert (tmp_path / folder / "share" / "a").exists()

    install("first")
    there.cut()
    install("second")


def test_what_it_saved_is_written_down_and_outlives_it(
    site: Site, there: Upstream, tmp_path: Path
) -> None:
    with local_mirror(mirrored(site, there), tmp_path / "data", LIMITS) as mirror:
        for _ in range(3):
            size = len(mirror.get(PACKAGE).body)
        _counted(mirror, 3)
    with local_mirror(mirrored(site, there), tmp_path / "data", LIMITS) as mirror:
        mirror.get(PACKAGE)
        known = _counted(mirror, 4)
        assert known["kinds"]["conda"]["from_cache"] == 3 * size
        assert known["kinds"]["conda"]["from_outside"] == size


def _counted(mirror: LocalMirror, asked: int) -> dict[str, Any]:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        known = mirror.known()
        count = known["kinds"]["conda"]
        if count["hits"] + count["misses"] == asked:
            return known
        time.sleep(0.05)
    raise AssertionError(count)


def test_a_full_disk_gives_nothing_out_that_is_not_whole(
    site: Site, there: Upstream, tmp_path: Path
) -> None:
    channel = TinyChannel(tmp_path / "upstream" / "lab")
    channel.add("big", files={"share/big": hashlib.shake_256(b"x").digest(12 * 2**20)})
    cache = tmp_path / "data" / "mirror" / "cache"
    cache.mkdir(parents=True)
    mounted = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(cache)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    try:
        with local_mirror(mirrored(site, there), tmp_path / "data", LIMITS) as mirror:
            with pytest.raises((IncompleteRead, OSError)):
                mirror.get("/conda/lab/noarch/big-1.0-0.conda")
            assert mirror.get(PACKAGE).status == 200
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def _bytes(there: Upstream, path: str) -> bytes:
    return (there.folder / path.lstrip("/")).read_bytes()

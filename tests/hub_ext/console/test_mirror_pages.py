"""The page Mirror and its numbers."""

from __future__ import annotations

import json

import pytest

from commons.site import Site

from .conftest import HOSTILE, Console

KNOWN = {
    "at": 4e9,  # whenever this runs
    "since": 1.8e9,
    "kinds": {
        "conda": {"hits": 90, "misses": 10, "stale": 3, "from_cache": 9e9, "from_outside": 1e9},
        "pypi": {"hits": 5, "misses": 5, "from_cache": 5e6, "from_outside": 5e6},
    },
    "cache": {"bytes": 4 * 2**30, "files": 1234, "limit": 100 * 2**30, "free": 50 * 2**30},
    "places": {
        "conda.anaconda.org": {"failed": 0, "answered_at": 1.8e9, "took": 0.1, "bytes": 10**9},
        "mirror.example.org": {"failed": 4, "failed_at": 1.8e9, "problem": HOSTILE},
    },
    "images": 0,
}


@pytest.fixture
def lab_site(lab_site: Site) -> Site:
    return Site.model_validate({**lab_site.model_dump(exclude={"mirror"}), "mirror": {}})


async def test_administrators_see_what_it_saved(console: Console) -> None:
    assert (await console.get("mirror", "alice-token")).code == 403
    page = (await console.get("mirror", "carol-token")).body.decode()
    assert "has not run yet" in page
    (console.data / "health").mkdir(parents=True, exist_ok=True)
    (console.data / "health" / "mirror.json").write_text(json.dumps(KNOWN))
    page = (await console.get("mirror", "carol-token")).body.decode()
    assert "1234 files" in page
    assert "90%" in page
    assert HOSTILE not in page
    assert page.count('aria-current="page">Mirror<') == 1


async def test_prometheus_gets_the_numbers(console: Console) -> None:
    (console.data / "health").mkdir(parents=True, exist_ok=True)
    (console.data / "health" / "mirror.json").write_text(json.dumps(KNOWN))
    text = (await console.get("metrics", "carol-token")).body.decode()
    assert 'labcommons_mirror_requests_total{answer="hits",packages="conda"} 90.0' in text
    assert 'labcommons_mirror_bytes_total{packages="conda",source="cache"} 9e+09' in text
    assert "labcommons_mirror_up 1.0" in text
    assert 'labcommons_mirror_upstream_failures{upstream="mirror.example.org"} 4.0' in text

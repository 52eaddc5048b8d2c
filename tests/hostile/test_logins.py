"""The site's logins for packages: who else gets to see them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from commons.principal import Principal
from commons.site import Environments, Site
from commons.store.environments import BuildState, EnvironmentBuild
from environments import pip_section
from environments.builds.tasks import Works
from environments.channel import Source
from environments.credentials import Credentials, without_secrets
from environments.install import install
from environments.solve import solve
from environments.spec import parse_spec
from rig.channel import TinyChannel
from rig.web import web

SECRET = "canary-of-the-site"


def logins(*places: str, monkeypatch: pytest.MonkeyPatch) -> Credentials:
    monkeypatch.setenv("THE_SECRET", SECRET)
    named = {place: {"token_variable": "THE_SECRET"} for place in places}
    return Credentials.load(Environments.model_validate({"credentials": named}).credentials)


@pytest.mark.parametrize(
    ("place", "url", "given"),
    [
        ("conda.lab.example", "https://conda.lab.example/main/x.conda", True),
        ("conda.lab.example", "https://CONDA.lab.example:443/main", True),
        ("conda.lab.example", "http://conda.lab.example/main", False),
        ("conda.lab.example", "https://conda.lab.example:9999/main", False),
        ("conda.lab.example", "http://conda.lab.example:443/main", False),
        ("conda.lab.example", "https://conda.lab.example.evil.example/main", False),
        ("conda.lab.example", "https://conda.lab.example@evil.example/main", False),
        ("conda.lab.example", "https://conda.lab.example:x/main", False),
        ("conda.lab.example", "ftp://conda.lab.example/main", False),
        ("conda.lab.example:8443", "https://conda.lab.example:8443/", True),
        ("conda.lab.example:8443", "https://conda.lab.example/", False),
        ("conda.lab.example/main", "https://conda.lab.example/main", True),
        ("conda.lab.example/main", "https://conda.lab.example/main/noarch/x", True),
        ("conda.lab.example/main", "https://conda.lab.example/mainly/x", False),
        ("conda.lab.example/main", "https://conda.lab.example/main/../other/x", False),
        ("conda.lab.example/main", "https://conda.lab.example/main/%2e%2e/other/x", False),
    ],
)
def test_a_login_is_for_one_place_and_goes_over_tls(
    place: str, url: str, given: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = logins(place, monkeypatch=monkeypatch)
    assert bool(known.headers(url)) is given
    assert (SECRET in known.in_url(url)) is given
    assert SECRET not in repr(known)


@pytest.mark.parametrize(
    "settings",
    [
        {"credentials": {"http://conda.lab.example": {"token_variable": "X"}}},
        {
            "credentials": {"conda.lab.example": {"token_variable": "X"}},
            "mirrors": {"lab": ["http://conda.lab.example/main"]},
        },
        {
            "credentials": {"pypi.lab.example": {"token_variable": "X"}},
            "pip_index": "http://pypi.lab.example/simple",
        },
    ],
)
def test_a_site_that_would_send_a_login_in_clear_is_told(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="https"):
        Environments.model_validate(settings)


def test_another_port_of_the_host_hears_no_login(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, other = TinyChannel(tmp_path / "private"), TinyChannel(tmp_path / "other")
    private.add("alpha")
    private.index()
    other.add("beta")
    other.index()
    heard: list[str] = []
    login = f"Bearer {SECRET}"
    with (
        web(other.folder, heard=heard) as there,
        web(private.folder, login=login) as here,
        web(private.folder, login=login, elsewhere=there) as sends_away,
    ):
        spec = parse_spec("name: x\nchannels: [a, b]\ndependencies: [alpha, beta]\n", name=None)
        known = logins(here.removeprefix("http://"), monkeypatch=monkeypatch)
        sources = [
            Source("a", "https://a.example/", here),
            Source("b", "https://b.example/", there),
        ]
        lock = solve(spec, sources, tmp_path / "pixi.lock", tmp_path / "cache", credentials=known)
        install(spec, lock, sources, "/x", tmp_path / "one", tmp_path / "cache", known)
        assert (tmp_path / "one" / "share" / "alpha").is_file()
        # A host that sends us elsewhere for the package does not take the login with us.
        (other.folder / "noarch" / "alpha-1.0-0.conda").write_bytes(
            (private.folder / "noarch" / "alpha-1.0-0.conda").read_bytes()
        )
        known = logins(sends_away.removeprefix("http://"), monkeypatch=monkeypatch)
        sources[0] = Source("a", "https://a.example/", sends_away)
        install(spec, lock, sources, "/x", tmp_path / "two", tmp_path / "empty", known)
        assert (tmp_path / "two" / "share" / "alpha").is_file()
    assert heard
    assert set(heard) == {""}
    for path in (tmp_path / "one", tmp_path / "two", tmp_path / "cache", tmp_path / "pixi.lock"):
        for file in [path] if path.is_file() else path.rglob("*"):
            assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file


def test_pip_gets_the_login_of_its_index_and_not_on_its_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with web(tmp_path, heard=heard) as other:
        known = logins("pypi.lab.example", monkeypatch=monkeypatch)
        settings = Environments.model_validate(
            {"pip_index": "https://pypi.lab.example/simple", "pip_extra_indexes": [other]}
        )
        found = pip_section._indexes(settings, known)
        assert SECRET in found["PIP_INDEX_URL"]
        assert found["PIP_EXTRA_INDEX_URL"] == other
        done = pip_section._pip(
            ("download", "no-such", "-d", str(tmp_path)),
            {"PIP_INDEX_URL": other, "PIP_RETRIES": "0"},
        )
    assert done.returncode
    assert set(heard) == {""}


def test_a_builder_in_which_a_package_runs_gets_no_address_with_a_password(site: Site) -> None:
    variables = {
        "PIP_INDEX_URL": f"https://me:{SECRET}@pypi.lab.example/simple",
        "HTTPS_PROXY": f"http://me:{SECRET}@proxy.lab.example:3128",
        "no_proxy": "localhost,.lab.example",
    }
    assert without_secrets(variables) == {"no_proxy": "localhost,.lab.example"}
    works = Works(site, variables)
    who = Principal("alice", uid=20001, gid=20000)
    job = EnvironmentBuild(
        id="ab" * 16, action="create", scope="personal", owner="alice", name="mine",
        requested_by="alice", spec="", words="", lock="", state=BuildState.RUNNING,
    )  # fmt: skip
    steps = [works.lock(job, who), *(works.of_person(s, job, who) for s in ("install", "look"))]  # type: ignore[arg-type]
    assert [SECRET in step.model_dump_json() for step in steps] == [True, False, False]

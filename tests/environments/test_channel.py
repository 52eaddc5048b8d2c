"""Choosing a channel's place: the nearest one that really answers, else a clear reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from commons.site import Environments
from environments.channel import OFFLINE_URL, Source, canonical_url, choose
from environments.errors import ChannelError
from environments.loopback import serve
from rig.channel import TinyChannel, bad_server

# Nothing listens on this port, and no name ends in .invalid (RFC 2606).
REFUSING = "http://127.0.0.1:9/channel"
NAMELESS = "https://channel.invalid/conda-forge"


def settings(*mirrors: str, offline: str = "never") -> Environments:
    return Environments.model_validate(
        {"mirrors": {NAMELESS: list(mirrors)}, "offline_channel": offline, "timeout": 2}
    )


def test_the_first_place_that_answers_is_taken(channel: TinyChannel, tmp_path: Path) -> None:
    said: list[str] = []
    with (
        bad_server("garbage") as garbage,
        bad_server("error") as error,
        serve([channel.folder]) as [good],
    ):
        chosen = choose(
            [NAMELESS], settings(REFUSING, garbage, error, good, "/nowhere"), tmp_path, said.append
        )
    assert chosen == [Source(NAMELESS, f"{NAMELESS}/", good)]
    tries = "\n".join(map(str, said))
    assert f"{REFUSING}: does not answer" in tries
    assert f"{garbage}: answers with something that is no channel index" in tries
    assert f"{error}: answers with HTTP status 500" in tries
    assert f"{good} answers" in tries
    assert "/nowhere" not in tries


def test_a_place_that_hangs_does_not_keep_the_others_from_answering(
    channel: TinyChannel, tmp_path: Path
) -> None:
    with bad_server("hangs") as hanging, serve([channel.folder]) as [good]:
        [chosen] = choose([NAMELESS], settings(hanging, good), tmp_path, lambda _: None)
    assert chosen.place == good


@pytest.mark.parametrize("as_url", [False, True])
def test_a_folder_is_a_place_too(channel: TinyChannel, tmp_path: Path, as_url: bool) -> None:
    place = channel.folder.as_uri() if as_url else str(channel.folder)
    [chosen] = choose([place], settings(), tmp_path, lambda _: None)
    assert chosen.place == str(channel.folder)
    assert ".invalid/" in chosen.url, "a lock must not name a folder of this machine as a URL"


def test_an_index_without_the_compressed_one_is_enough(
    channel: TinyChannel, tmp_path: Path
) -> None:
    (channel.folder / "noarch/repodata.json.zst").unlink()
    with serve([channel.folder]) as [good]:
        [chosen] = choose([NAMELESS], settings(good), tmp_path, lambda _: None)
    assert chosen.place == good


def test_without_any_place_the_error_names_channel_tries_and_setting(tmp_path: Path) -> None:
    with pytest.raises(ChannelError) as caught:
        choose([NAMELESS], settings(REFUSING, "/nowhere"), tmp_path, lambda _: None)
    words = str(caught.value)
    assert f"channel {NAMELESS}: no place answers" in words
    assert f"{REFUSING}: does not answer" in words
    assert "/nowhere: has no noarch/repodata.json" in words
    assert f"environments.mirrors.{NAMELESS}" in words
    assert "environments.offline_channel" in words


def test_our_own_channel_stands_in_where_the_site_allows_it(tmp_path: Path) -> None:
    [chosen] = choose([NAMELESS], settings(offline="auto"), tmp_path, lambda _: None)
    assert chosen == Source(NAMELESS, OFFLINE_URL, str(tmp_path))
    assert chosen.is_offline


def test_our_own_channel_is_the_only_one_where_the_site_says_so(
    channel: TinyChannel, tmp_path: Path
) -> None:
    with serve([channel.folder]) as [good]:
        [chosen] = choose([NAMELESS], settings(good, offline="always"), tmp_path, lambda _: None)
    assert chosen.is_offline


def test_a_channels_name_stands_for_its_usual_url() -> None:
    assert canonical_url("conda-forge").endswith("/conda-forge/")
    assert canonical_url("https://mirror.example.org/x") == "https://mirror.example.org/x/"


@pytest.mark.parametrize(
    "written",
    [
        canonical_url("lab"),
        canonical_url("lab").rstrip("/"),
        "https://mirror.invalid/anaconda/cloud/lab",
        "http://mirror.invalid/lab/",
    ],
)
def test_a_channel_written_as_url_finds_the_mirror_of_its_name(
    written: str, channel: TinyChannel, tmp_path: Path
) -> None:
    """The kind: a URL copied from another country's mirror, or conda's own, where only ours is."""
    mirrors = {"lab": [str(channel.folder)]}
    site = Environments.model_validate({"mirrors": mirrors, "timeout": 2})
    [source] = choose([written], site, tmp_path / "offline", lambda _: None)
    assert source == Source(written, canonical_url(written), str(channel.folder))


def test_the_parts_of_defaults_find_its_mirror(channel: TinyChannel, tmp_path: Path) -> None:
    (tmp_path / "anaconda").mkdir()
    (tmp_path / "anaconda" / "main").symlink_to(channel.folder)
    mirrors = {"defaults": [str(tmp_path / "anaconda")]}
    site = Environments.model_validate({"mirrors": mirrors, "timeout": 2})
    for written in ("https://repo.invalid/pkgs/main", "pkgs/main"):
        [source] = choose([written], site, tmp_path / "offline", lambda _: None)
        assert Path(source.place) == tmp_path / "anaconda" / "main"


def test_a_host_that_answers_is_asked_itself_and_not_its_namesake(
    channel: TinyChannel, tmp_path: Path
) -> None:
    """A lab's own channel may be called as another one is."""
    with serve([channel.folder]) as [place]:
        url = f"{place.rstrip('/')}/"
        mirrors = {url.rstrip("/").rpartition("/")[2]: [str(tmp_path / "other")]}
        site = Environments.model_validate({"mirrors": mirrors, "timeout": 5})
        [source] = choose([url], site, tmp_path / "offline", lambda _: None)
    assert source.place.rstrip("/") == url.rstrip("/")


def test_a_default_channel_that_is_silent_is_left_out_where_the_file_has_others(
    channel: TinyChannel, tmp_path: Path
) -> None:
    """The kind: conda's default channels come after those of a file, and need not be there."""
    mirrors = {"lab": [str(channel.folder)]}
    for offline in ("never", "auto"):
        site = Environments.model_validate(
            {"mirrors": mirrors, "timeout": 2, "offline_channel": offline}
        )
        asked = ["lab", NAMELESS]
        said: list[str] = []
        found = choose(asked, site, tmp_path / "o", said.append, optional=[NAMELESS])
        assert [source.channel for source in found] == ["lab"]
        assert any("left out" in str(line) for line in said)
    with pytest.raises(ChannelError):
        choose(
            [NAMELESS], Environments(timeout=2), tmp_path / "o", said.append, optional=[NAMELESS]
        )

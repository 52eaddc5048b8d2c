"""Choosing a channel's place: the nearest one that really answers, else a clear reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub_ext.site import Environments
from rig.channel import TinyChannel, bad_server
from spawner.environments.channel import OFFLINE_URL, Source, canonical_url, choose
from spawner.environments.errors import ChannelError
from spawner.environments.loopback import serve

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
    tries = "\n".join(said)
    assert f"{REFUSING} does not answer" in tries
    assert f"{garbage} answers with something that is no channel index" in tries
    assert f"{error} answers with HTTP status 500" in tries
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

"""Which version runs, as `labcommons --version` and the foot of pages say."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from commons.version import NEWS, News, news, version
from hub_ext.cli import cli


@pytest.mark.parametrize("place", ["site.yaml", "demo/site.yaml"])
@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (b"0a1b2c3d4e5f\n", " (0a1b2c3d4e5f)"),
        (b"0a1b2c3d4e5f+\n", " (0a1b2c3d4e5f+)"),
        (b"\n", ""),
        (b"<script>", ""),
        (b"\xff\xfe", ""),
        (None, ""),
    ],
)
def test_the_commit_is_said_where_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: bytes | None, shown: str
) -> None:
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(tmp_path / place))
    (tmp_path / "demo").mkdir()
    bare = version()
    if said is not None:
        (tmp_path / "revision").write_bytes(said)
    assert version() == bare + shown
    assert CliRunner().invoke(cli, ["--version"]).output == f"labcommons {bare}{shown}\n"


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ('{"before": "0.1.0 (a)", "changes": [{"text": "one"}]}', News("0.1.0 (a)", ("one",))),
        (
            '{"before": "0.1.0", "changes": [{"text": "**a** `b` [c](d.md)"}]}',
            News("0.1.0", ("a `b` c",)),
        ),
        ('{"before": null, "changes": [{"text": "one"}]}', None),
        ('{"before": "0.1.0", "changes": [1]}', None),
        ("[" * 100_000, None),
        ("", None),
        (None, None),
    ],
)
def test_what_is_new_is_shown_where_it_was_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, found: News | None
) -> None:
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(tmp_path / "site.yaml"))
    if said is not None:
        (tmp_path / NEWS).write_text(said)
    assert news() == found

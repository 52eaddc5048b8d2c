"""What is new since the version before, from CHANGELOG.md."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from commons import version
from deploy import release, settings, whatsnew
from deploy.release import Release, State
from deploy.settings import Settings

THEN = """# Changes

## 0.1.0 (unreleased)

The whole path:

- `make up`, and
  more.
- Logins.
"""
NOW = """# Changes

## 0.2.0

Safety ([docs](docs/x.md)):

- **New**: a thing
  of two lines.

## 0.1.0 (2026-10-01)

The whole path:

- `make up`, and
  more.
- Late news of the same version.
- Logins.
"""


def texts(found: list[whatsnew.Change]) -> list[str]:
    return [one.text for one in found]


def test_entries_that_were_not_there_are_new() -> None:
    found = whatsnew.since(NOW, Release("0.1.0", "a"), THEN)
    assert texts(found) == ["**New**: a thing of two lines.", "Late news of the same version."]
    assert (found[0].version, found[0].part) == ("0.2.0", "Safety ([docs](docs/x.md)):")
    assert whatsnew.since(NOW, Release("0.2.0", "a"), NOW) == []


@pytest.mark.parametrize(
    ("version", "versions"),
    [("0.1.0", {"0.2.0"}), ("0.2.0", {"0.2.0"}), ("", {"0.2.0", "0.1.0 (2026-10-01)"})],
)
def test_without_the_earlier_file_it_goes_by_versions(version: str, versions: set[str]) -> None:
    found = whatsnew.since(NOW, Release(version, ""), None)
    assert {one.version for one in found} == versions


def test_the_command_compares_with_the_commit_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "checkout"
    root.mkdir()
    site = Settings("lab", (), "site.yaml", tmp_path / "data", "127.0.0.1", 8443, 8080)
    monkeypatch.setattr(whatsnew, "ROOT", root)
    monkeypatch.setattr(release, "ROOT", root)
    monkeypatch.setattr(settings, "load", lambda: site)
    (root / "CHANGELOG.md").write_text(THEN)
    (root / "pyproject.toml").write_text('[project]\nversion = "0.2.0"\n')
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "--quiet"], ["add", "-A"], [*who, "commit", "--quiet", "-m", "x"]):
        subprocess.run(["git", "-C", str(root), *words], check=True)
    assert whatsnew.whatsnew([]) == 0
    assert "No other version ran here before" in capsys.readouterr().out
    before = Release("0.1.0", str(release.git("rev-parse", "--short=12", "HEAD")))
    release.save(site, State(Release("0.2.0", "b" * 12), before))
    assert whatsnew.whatsnew([]) == 0
    assert "nothing new since then" in capsys.readouterr().out
    (root / "CHANGELOG.md").write_text(NOW)
    assert whatsnew.whatsnew([]) == 0
    said = capsys.readouterr().out
    assert said.startswith("LabCommons 0.2.0 (bbbbbbbbbbbb); before it ran 0.1.0 (")
    assert "0.2.0: Safety" in said
    assert "Logins" not in said
    (root / "config").mkdir()
    whatsnew.write(release.load(site))
    monkeypatch.setenv("LABCOMMONS_SITE_FILE", str(root / "config" / "site.yaml"))
    shown = version.news()
    assert shown
    assert shown.before.startswith("0.1.0 (")
    assert len(shown.changes) == 2
    assert whatsnew.whatsnew(["--json", "--all"]) == 0
    assert len(json.loads(capsys.readouterr().out)["changes"]) == 4

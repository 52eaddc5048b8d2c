"""Known holes: a scanner's answer and a local OSV database keep a version from being offered."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commons.site import EnvironmentScan
from environments.errors import BuildError
from environments.inventory import Installed
from environments.scan import advisories, match, scan, trivy

OSV = {
    "id": "PYSEC-2024-1",
    "aliases": ["CVE-2024-1"],
    "summary": "Reads what it should not",
    "affected": [
        {
            "package": {"ecosystem": "PyPI", "name": "Some_Thing"},
            "ranges": [
                {
                    "type": "ECOSYSTEM",
                    "events": [
                        {"introduced": "0"},
                        {"fixed": "1.2.10"},
                        {"introduced": "2.0"},
                        {"fixed": "2.1"},
                    ],
                }
            ],
        }
    ],
}


def installed(name: str, version: str) -> Installed:
    return Installed("conda", name, version, distributions=((name, version),))


def found(version: str, *documents: dict[str, Any], name: str = "some-thing") -> list[Any]:
    return match([installed(name, version)], documents or (OSV,))


@pytest.mark.parametrize(
    ("version", "hit"),
    [
        ("0.1", True),
        ("1.2.9", True),
        ("1.2.10", False),
        ("1.9", False),
        ("2.0", True),
        ("2.0.post1", True),
        ("2.1", False),
        ("2.0rc1", False),
        ("not-a-version", False),
    ],
)
def test_versions_are_matched_as_pep_440_orders_them(version: str, hit: bool) -> None:
    assert bool(found(version)) is hit


@given(st.lists(st.integers(0, 30), min_size=2, max_size=6, unique=True), st.integers(0, 30))
def test_what_lies_between_introduced_and_fixed_is_hit(bounds: list[int], version: int) -> None:
    bounds = sorted(bounds)[: len(bounds) // 2 * 2]
    kinds = ["introduced", "fixed"] * (len(bounds) // 2)
    events = [{kind: f"1.{bound}"} for kind, bound in zip(kinds, bounds, strict=True)]
    document = {
        "id": "X",
        "affected": [
            {
                "package": {"ecosystem": "PyPI", "name": "a"},
                "ranges": [{"type": "ECOSYSTEM", "events": events[::-1]}],
            }
        ],
    }
    inside = any(low <= version < high for low, high in zip(bounds[::2], bounds[1::2], strict=True))
    assert bool(found(f"1.{version}", document, name="a")) is inside


def test_other_ecosystems_and_withdrawn_advisories_do_not_count() -> None:
    npm = json.loads(json.dumps(OSV).replace("PyPI", "npm"))
    assert found("1.0", npm) == []
    assert found("1.0", {**OSV, "withdrawn": "2024-02-02T00:00:00Z"}) == []
    listed = {
        "id": "L",
        "affected": [{"package": {"ecosystem": "PyPI", "name": "a"}, "versions": ["7"]}],
    }
    assert found("7", listed, name="a")
    assert not found("8", listed, name="a")


def test_one_hole_under_two_names_is_one_and_keeps_its_rating() -> None:
    ghsa = {**OSV, "id": "GHSA-x", "database_specific": {"severity": "MODERATE"}}
    for order in ((OSV, ghsa), (ghsa, OSV)):
        [hole] = found("1.0", *order)
        assert (hole.id, hole.severity, hole.fixed) == ("GHSA-x", "medium", "1.2.10")
    [unrated] = found("1.0")
    assert unrated.severity == "high", "nobody said that it is harmless"


@pytest.mark.parametrize("shape", ["file", "list", "folder", "zip"])
def test_a_database_is_a_file_a_folder_or_a_zip(tmp_path: Path, shape: str) -> None:
    place = tmp_path / "osv"
    if shape == "folder":
        (place / "deep").mkdir(parents=True)
        (place / "deep" / "a.json").write_text(json.dumps(OSV))
    elif shape == "zip":
        place = place.with_suffix(".zip")
        with zipfile.ZipFile(place, "w") as archive:
            archive.writestr("a.json", json.dumps(OSV))
    else:
        place = place.with_suffix(".json")
        place.write_text(json.dumps([OSV] if shape == "list" else OSV))
    assert [document["id"] for document in advisories(place)] == ["PYSEC-2024-1"]


def test_a_broken_database_is_an_error_and_not_a_clean_bill(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"id": ')
    with pytest.raises(BuildError, match=r"a\.json cannot be read"):
        list(advisories(tmp_path))
    with pytest.raises(BuildError, match="is not there"):
        list(advisories(tmp_path / "none"))


TRIVY = {
    "SchemaVersion": 2,
    "Results": [
        {"Target": "clean"},
        {
            "Target": "Python",
            "Vulnerabilities": [
                {
                    "VulnerabilityID": "CVE-2024-9",
                    "PkgName": "pillow",
                    "InstalledVersion": "10.0.0",
                    "FixedVersion": "10.3.0, 11.0",
                    "Severity": "CRITICAL",
                    "Title": "overflow",
                },
                {
                    "VulnerabilityID": "CVE-2024-8",
                    "PkgName": "pip",
                    "InstalledVersion": "23",
                    "Severity": "LOW",
                },
            ],
        },
    ],
}


def command(tmp_path: Path, document: object, status: int = 0) -> list[str]:
    """A scanner that answers with a document and remembers what it was asked."""
    program = tmp_path / "scanner.py"
    program.write_text(
        "import sys, pathlib\n"
        f"pathlib.Path({str(tmp_path / 'asked')!r}).write_text(' '.join(sys.argv[1:]))\n"
        f"print({json.dumps(document)!r})\nsys.exit({status})\n"
    )
    return [sys.executable, str(program), "sbom", "--format=json", "{sbom}"]


def test_a_scanners_findings_from_the_threshold_on_block(tmp_path: Path) -> None:
    settings = EnvironmentScan(command=command(tmp_path, TRIVY), threshold="high")
    levels = {finding.level: finding for finding in scan(tmp_path / "prefix", settings)}
    assert levels["refuse"].message == "pillow 10.0.0 has CVE-2024-9 (critical): overflow"
    assert levels["refuse"].remedy == "ask for pillow >=10.3.0"
    assert "CVE-2024-8 (low)" in levels["warn"].message
    assert (tmp_path / "asked").read_text().endswith("conda-meta/labcommons/sbom.cdx.json")


def test_what_the_site_decided_to_live_with_is_ignored(tmp_path: Path) -> None:
    asked = command(tmp_path, TRIVY)
    settings = EnvironmentScan(command=asked, ignore={"CVE-2024-9": "not reachable here"})
    assert [item.level for item in scan(tmp_path, settings)] == ["warn"]
    never = EnvironmentScan(command=asked, threshold="never")
    assert {item.level for item in scan(tmp_path, never)} == {"warn"}


@pytest.mark.parametrize("answer", ["not json", {}, {"SchemaVersion": 2, "Results": [7]}])
def test_a_scanner_that_fails_is_no_clean_bill(tmp_path: Path, answer: object) -> None:
    settings = EnvironmentScan(command=command(tmp_path, answer, status=1))
    with pytest.raises(BuildError, match="did not print Trivy's JSON"):
        scan(tmp_path, settings)


def test_a_scanner_that_is_not_there_or_hangs_is_said(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"does not start.*environments\.scan\.command"):
        scan(tmp_path, EnvironmentScan(command=["/no/such/scanner"]))
    with pytest.raises(BuildError, match="gave up after 1 s"):
        scan(tmp_path, EnvironmentScan(command=["sleep", "30"], timeout=1))


def test_an_answer_without_vulnerabilities_is_clean() -> None:
    assert list(trivy({"SchemaVersion": 2, "Results": None})) == []

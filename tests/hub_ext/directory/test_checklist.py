"""The table of pitfalls in docs/ldap.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent


def test_every_pitfall_names_tests_that_exist():
    rows = re.findall(r"^\| (\d+) \|.*$", (HERE.parents[2] / "docs" / "ldap.md").read_text(), re.M)
    assert [int(number) for number in rows] == list(range(1, 29))
    text = (HERE.parents[2] / "docs" / "ldap.md").read_text("utf-8")
    named = set(re.findall(r"`(test_\w+)`", text))
    written = "".join(file.read_text("utf-8") for file in HERE.glob("test_*.py"))
    missing = {name for name in named if f"def {name}(" not in written}
    assert not missing

"""Writes down what conda makes of each form in answers.json: conda's own answers, none of ours.

    git clone https://github.com/conda/conda && cd conda   # and what its pyproject.toml wants
    PYTHONPATH=. python .../tests/environments/conda/record.py

The forms are the keys of answers.json; a new one is added there with ``null`` and recorded. conda
is run, not read: ``MatchSpec`` for the lines of ``dependencies``; for whole files the specifier
``cep-24``, which ``conda env create`` chooses, and ``environment.yml``, the older and laxer one.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Where names without a URL are: of a host that is nobody's, so that the table names none.
os.environ["CONDA_CHANNEL_ALIAS"] = "https://conda.example.org"

import conda  # type: ignore[import-not-found]
from conda.env.specs.cep_24 import Cep24YamlFileSpec  # type: ignore[import-not-found]
from conda.env.specs.yaml_file import YamlFileSpec  # type: ignore[import-not-found]
from conda.models.match_spec import MatchSpec  # type: ignore[import-not-found]

TABLE = Path(__file__).with_name("answers.json")


def version() -> str:
    """conda's version: the tag of its checkout, and how many commits after it."""
    where = Path(conda.__file__).parent
    if not conda.__version__.startswith("0.0"):
        return str(conda.__version__)
    described = subprocess.run(
        ["git", "-C", where, "describe", "--tags"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or sys.argv[1]


def of_spec(text: str) -> dict[str, Any] | None:
    """What conda reads in one line; None where it refuses."""
    try:
        spec = MatchSpec(text)
    except Exception:
        return None
    found = {key: spec.get(key) for key in ("name", "version", "build", "channel", "subdir")}
    if found["channel"]:
        found["channel"] = found["channel"].canonical_name
    return {key: str(value) for key, value in found.items() if value is not None}


def of_file(text: str) -> dict[str, Any]:
    """What both specifiers make of a file; None where they refuse, or end in a traceback."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "environment.yml")
        path.write_text(text, "utf-8", newline="")
        return {"strict": _file(Cep24YamlFileSpec, path), "lax": _file(YamlFileSpec, path)}


def _file(reader: Any, path: Path) -> dict[str, Any] | None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            spec = reader(str(path))
            spec.can_handle()
            found = spec.env
        return {
            "name": None if found.name is None else str(found.name),
            "channels": [str(one) for one in found.config.channels],
            "dependencies": sorted(of_spec(str(one))["name"] for one in found.requested_packages),
            "pip": sorted(map(str, (found.external_packages or {}).get("pip") or ())),
            "variables": {str(k): str(v) for k, v in (found.variables or {}).items()},
        }
    except Exception:
        return None


def main() -> None:
    """Answer every form anew."""
    table = json.loads(TABLE.read_text("utf-8"))
    table["conda"] = version()
    table["specs"] = {form: of_spec(form) for form in table["specs"]}
    table["files"] = {form: of_file(form) for form in table["files"]}
    TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()

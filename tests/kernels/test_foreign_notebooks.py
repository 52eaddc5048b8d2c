"""Notebooks that scripts wrote, whose metadata is not whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kernels.foreign_notebooks import whole

PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({}, {}),
        ({"kernelspec": PYTHON}, {"kernelspec": PYTHON}),
        ({"kernelspec": {}}, {}),
        ({"kernelspec": None}, {}),
        ({"kernelspec": "python3"}, {}),
        ({"kernelspec": {"name": 3}}, {}),
        ({"kernelspec": {"name": ""}}, {}),
        ({"kernelspec": {"display_name": "Python 3"}}, {}),
        ({"kernelspec": {"name": "r"}}, {"kernelspec": {"name": "r", "display_name": "r"}}),
        ({"language_info": {}}, {}),
        ({"language_info": {"name": "R", "version": "4"}},
         {"language_info": {"name": "R", "version": "4"}}),
    ],
)  # fmt: skip
def test_what_is_too_little_is_not_there(said: dict[str, Any], read: dict[str, Any]) -> None:
    assert whole({"metadata": said | {"mine": [1]}}) == {"metadata": read | {"mine": [1]}}


@pytest.mark.parametrize("odd", [None, [], {}, {"metadata": None}, {"metadata": []}])
def test_what_is_no_notebook_is_left_to_who_reads_it(odd: object) -> None:
    assert whole(odd) is odd


@pytest.mark.parametrize("spec", [{}, {"name": "python3"}, None])
def test_nbconvert_takes_a_notebook_that_names_its_kernel_by_halves(
    tmp_path: Path, spec: object
) -> None:
    """Kind: a program that ends with nbformat's own words."""
    cell = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "*here*"}
    notebook = {
        "cells": [cell],
        "metadata": {"kernelspec": spec},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (tmp_path / "n.ipynb").write_text(json.dumps(notebook))
    words = [sys.executable, "-m", "kernels.programs", "nbconvert", "--to", "markdown", "--stdout"]
    tree = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        [*words, "n.ipynb"], cwd=tmp_path, env={"PYTHONPATH": tree, "HOME": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "*here*" in done.stdout
    assert "invalid" not in done.stderr

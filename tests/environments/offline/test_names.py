"""conda's names and PyPI's: never other software without a word."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.conda_names import table
from environments import offline
from environments.errors import BuildError
from environments.offline.names import PyPIName, is_distribution, pypi_name
from environments.spec import EnvironmentSpec

WriteSpec = Callable[..., EnvironmentSpec]


@pytest.mark.parametrize(
    ("conda", "pypi"),
    [
        ("numpy", "numpy"),
        ("pytorch", "torch"),
        ("matplotlib-base", "matplotlib"),
        ("python-graphviz", "graphviz"),
        ("typing_extensions", "typing-extensions"),
        ("typing-extensions", "typing-extensions"),
        ("ruamel.yaml", "ruamel-yaml"),
        ("opencv", "opencv-python-headless"),
        ("docker-py", "docker"),
    ],
)
def test_a_name_means_the_same_software(conda: str, pypi: str) -> None:
    assert pypi_name(conda) == PyPIName(pypi, is_known=True)


@pytest.mark.parametrize(
    "name", ["graphviz", "ffmpeg", "snappy", "r-base", "bioconductor-deseq2", "samtools", "nodejs"]
)
def test_what_is_not_pythons_is_refused_with_the_remedy(write_spec: WriteSpec, name: str) -> None:
    spec = write_spec("python 3.13.*", "numpy", name)
    with pytest.raises(BuildError, match=f"{name}.*other software.*environments.mirrors"):
        offline.pypi_requirements(spec)
    assert not is_distribution(name)
    # Where a real channel is asked too, that has it or the solver says so.
    part = offline.pythons_part(spec)
    assert [item.name for item in part.dependencies] == ["python", "numpy"]


def test_the_refusal_names_what_is_meant_by_pypis_name() -> None:
    with pytest.raises(BuildError, match="PyPI's 'graphviz' is conda's 'python-graphviz'"):
        pypi_name("graphviz")


def test_a_name_that_nobody_knows_is_taken_with_a_word_about_it(write_spec: WriteSpec) -> None:
    spec = write_spec("python 3.13.*", "numpy", "our-own_tools >=2")
    assert "our-own-tools>=2" in offline.pypi_requirements(spec)
    [remark] = map(str, offline.remarks(spec))
    assert "our-own_tools taken from PyPI under the same name" in remark
    assert "numpy" not in remark
    assert offline.remarks(write_spec("python 3.13.*", "numpy")) == []


def test_another_name_on_pypi_is_said(write_spec: WriteSpec) -> None:
    spec = write_spec("python 3.13.*", "pytorch >=2", "pytables", "Jupyter_client")
    assert list(map(str, offline.remarks(spec))) == [
        "offline channel: on PyPI pytorch is torch, pytables is tables"
    ]


def test_the_table_is_made_of_what_is_in_packages() -> None:
    found = table(
        [
            {
                "numpy": ["numpy"],
                "pytorch": ["torch"],
                "graphviz": None,
                "r-base": None,
                "r-to-python": ["r_to_python"],
                "several": ["one", "other"],
                "vendors": ["vendors", "six"],
                "spelled-so": None,
                "spelled_so": ["spelled-so"],
                "meta": None,
                "meta-base": ["Meta"],
            },
            {"graphviz": ["graphviz"], "own": ["own", "unknown"]},
        ]
    )
    assert found == sorted(found)
    assert [line for line in found if not line.endswith("-*=")] == [
        "graphviz=",
        "meta",
        "meta-base=meta",
        "numpy",
        "own",
        "pytorch=torch",
        "r-to-python",
        "several=",
        "spelled-so",
        "spelled_so",
        "vendors",
    ]
    assert "r-*=" in found

"""environment.yml files as they are found in the world: each locks, or says why it does not.

What the channels have of them is written down here in short; packages are not fetched.
"""

from __future__ import annotations

import hashlib
import json
from datetime import date
from pathlib import Path

import pytest

from commons.site import Environments
from environments import policy
from environments.errors import LockError, SpecError
from environments.lock import read_lock
from environments.maker import Locked, Maker, cuda_of
from environments.solve import wanted_cuda
from environments.spec import EnvironmentSpec, parse_spec

SPECS = Path(__file__).parent / "specs"
# name version build [: needs]; those on linux-aarch64 too begin with "*".
PACKAGES = """
*python 3.8.20 h4a871b0_2_cpython
*python 3.11.9 hb806964_0_cpython : _libgcc_mutex
*python 3.11.10 hc5c86c4_3_cpython : _libgcc_mutex
*python 3.12.7 hc5c86c4_0_cpython
*python 3.13.0 h9ebbce0_100_cp313
*_libgcc_mutex 0.1 conda_forge
*ipykernel 6.29.5 pyh3099207_0 : python >=3.8
numpy 1.26.4 py311h64a7726_0 : python >=3.11,<3.12.0a0
numpy 1.26.4 py312heda63a1_0 : python >=3.12,<3.13.0a0
*numpy 2.1.2 py312h58c1407_0 : python >=3.12,<3.13.0a0
pandas 2.2.2 py311h14de704_1 : python >=3.11,<3.12.0a0, numpy >=1.19,<3
pytorch 2.3.1 py3.11_cuda12.1_cudnn8.9.2_0 : python >=3.11,<3.12.0a0, pytorch-cuda 12.1.*, numpy
pytorch 2.3.1 py3.11_cpu_0 : python >=3.11,<3.12.0a0, numpy
torchvision 0.18.1 py311_cu121 : pytorch 2.3.1
pytorch-cuda 12.1 ha16c6d3_5 : cuda-version 12.1.*
cuda-version 12.1 h1d6eff3_3
cuda-version 12.5 hd4f0392_3
cudatoolkit 11.2.2 hbe64b41_10
tensorflow 2.6.0 cuda112py38hbe5352d_2 : python >=3.8,<3.9.0a0, cudatoolkit 11.2.*, __cuda
rapids 24.10.00 cuda12_py311_241009_g : python >=3.11,<3.12.0a0, cuda-version >=12.0,<13, __cuda
r-base 4.3.3 h0f8e5d4_12
r-tidyverse 2.0.0 r43h785f33e_2 : r-base >=4.3,<4.4.0a0
r-irkernel 1.3.2 r43h785f33e_1 : r-base >=4.3,<4.4.0a0
bioconductor-deseq2 1.42.0 r43hf17093f_2 : r-base >=4.3,<4.4.0a0
gdal 3.9.3 py312h1299960_0 : python >=3.12,<3.13.0a0, libgdal-core 3.9.3.*
libgdal-core 3.9.3 h044c2d3_4
libgdal-arrow-parquet 3.9.3 h5f34788_4 : libgdal-core 3.9.3.*
geopandas 1.0.1 pyhd8ed1ab_1 : python >=3.9
rasterio 1.3.10 py312h1c98354_4 : python >=3.12,<3.13.0a0
rasterio 1.4.1 py312h8456570_1 : python >=3.12,<3.13.0a0, libgdal-core >=3.9
snakemake-minimal 8.23.1 pyhdfd78af_0 : python >=3.11,<3.13
samtools 1.20 h50ea8bc_1
samtools 1.22 h96c455f_0
bwa 0.7.18 he4a0461_1
bwa 0.7.18 h577a1d6_2
pip 24.2 pyh8b19718_1 : python >=3.8
"""
CHANNELS = ("conda-forge", "bioconda", "pytorch", "nvidia", "nvidia/label/cuda-12.1.0", "rapidsai")
# Those that lock, the CUDA they are solved for, and packages that must be among what they get.
LOCK = {
    "pytorch-cuda": ("12.4", ["pytorch 2.3.1 py3.11_cuda12.1_cudnn8.9.2_0", "cuda-version 12.1"]),
    "tensorflow-old": ("12.4", ["tensorflow 2.6.0", "python 3.8.20"]),
    "rapids": ("12.5", ["rapids 24.10.00", "cuda-version 12.5"]),
    "r-tidyverse": (None, ["r-base 4.3.3", "bioconductor-deseq2 1.42.0 r43hf17093f_2"]),
    "geospatial": (None, ["gdal 3.9.3", "rasterio 1.4.1"]),
    "bio": (None, ["samtools 1.20", "bwa 0.7.18 he4a0461_1", "snakemake-minimal 8.23.1"]),
    "exported": (None, ["python 3.11.9 hb806964_0_cpython"]),
    "anaconda-defaults": (None, ["pandas 2.2.2", "numpy 1.26.4 py311h64a7726_0"]),
    "two-platforms": (None, ["numpy 2.1.2"]),
    "gan": ("12.4", ["python 3.11", "pytorch 2.3.1", "numpy 1.26.4"]),
    "released": (None, ["samtools 1.20 h50ea8bc_1", "bwa 0.7.18", "snakemake-minimal 8.23.1"]),
    "no-channels": (None, ["python 3.12.7", "numpy", "ipykernel"]),
    "selector-keys": (None, ["python 3.11.10"]),
    "macs": (None, ["python 3.11.10"]),
}
REFUSED = {
    "pip-requirements": "line 6: '-r requirements.txt': other files are not read",
    "pip-git": "line 6: .*what a URL or a git repository gives can change",
    "pip-index": "line 6: .*where pip's packages come from is the site's to say",
    "pip-editable": "line 3: '-e .': a file or folder on one machine only",
    "loud-name": "line 1: name 'PyTorch GPU': small letters and digits",
}
UNSOLVABLE = {
    "impossible": r"(?s)numpy.*python.*Change the dependencies in impossible\.yml",
    "selectors": r"(?s)pywin32.*is in none of the channels",
    "unknown": r"(?s)scikitlearn.*is in none of the channels conda-forge",
    "rapids": r"(?s)__cuda.*it is solved for no CUDA: write 'cuda: \"12.4\"'",
}


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A channel's index without its packages, in a folder."""
    folder = tmp_path_factory.mktemp("index")
    for subdir in ("noarch", "linux-64", "linux-aarch64"):
        packages = {}
        for line in PACKAGES.strip().splitlines() if subdir != "noarch" else ():
            if subdir == "linux-aarch64" and not line.startswith("*"):
                continue
            what, _, needs = line.removeprefix("*").partition(" : ")
            name, version, build = what.split()
            file = f"{name}-{version}-{build}.conda"
            packages[file] = {
                "name": name,
                "version": version,
                "build": build,
                "build_number": 0,
                "depends": [need.strip() for need in needs.split(", ")] if needs else [],
                "subdir": subdir,
                "sha256": hashlib.sha256(f"{subdir}/{file}".encode()).hexdigest(),
                "size": 1,
            }
        index = {"info": {"subdir": subdir}, "packages": {}, "packages.conda": packages}
        (folder / subdir).mkdir()
        (folder / subdir / "repodata.json").write_text(json.dumps(index))
    return folder


@pytest.fixture
def maker(channel: Path, tmp_path: Path) -> Maker:
    mirrors = {name: [str(channel)] for name in CHANNELS}
    # What stands behind the name `defaults`.
    mirrors |= {name: [str(channel)] for name in ("main", "r")}
    settings = Environments.model_validate({"mirrors": mirrors})
    return Maker(settings, tmp_path / "none", tmp_path / "cache", lambda _: None)


def read(name: str, cuda: str | None = None) -> EnvironmentSpec:
    words = f"cuda: '{cuda}'\n" if cuda else None
    text = (SPECS / f"{name}.yml").read_text()
    return parse_spec(text, name=None, words=words, file=f"{name}.yml")


def test_every_spec_of_the_collection_is_looked_at() -> None:
    named = {*LOCK, *REFUSED, *UNSOLVABLE, "pip-mixed"}
    assert {path.stem for path in SPECS.glob("*.yml")} == named


@pytest.mark.parametrize("name", LOCK)
def test_it_locks(name: str, maker: Maker, tmp_path: Path) -> None:
    cuda, expected = LOCK[name]
    locked: Locked = maker.lock(read(name, cuda), tmp_path / "pixi.lock")
    found = {f"{p.name} {p.version} {p.build}" for p in locked.lock.packages}
    for package in expected:
        assert any(item.startswith(package) for item in found), (package, found)


def test_a_lock_can_be_for_two_platforms(maker: Maker, tmp_path: Path) -> None:
    path = maker.lock(read("two-platforms"), tmp_path / "pixi.lock").lock.path
    for platform in ("linux-64", "linux-aarch64"):
        packages = read_lock(path, platform).packages
        assert {item.subdir for item in packages} == {platform}
        assert len(packages) == 3


@pytest.mark.parametrize(
    ("words", "site", "wanted"),
    [
        (None, "", None),
        (None, "12.4", "12.4"),
        ("gpu: optional\n", "12.4", "12.4"),
        ("gpu: none\n", "12.4", None),
        ("cuda: '11.8'\n", "12.4", "11.8"),
    ],
)
def test_cuda_is_the_environments_own_or_the_sites(
    words: str | None, site: str, wanted: str | None
) -> None:
    spec = parse_spec((SPECS / "rapids.yml").read_text(), name=None, words=words)
    assert wanted_cuda(spec, Environments(cuda=site)) == wanted


def test_it_is_known_which_cuda_an_environment_is_for(maker: Maker, tmp_path: Path) -> None:
    spec = read("pytorch-cuda", "12.4")
    assert cuda_of(spec, maker.lock(spec, tmp_path / "pixi.lock").lock) == "12.1"


def test_the_python_of_an_old_paper_is_refused(maker: Maker, tmp_path: Path) -> None:
    spec = read("tensorflow-old", "12.4")
    lock = maker.lock(spec, tmp_path / "pixi.lock").lock
    found = policy.check(spec, lock, Environments(), date(2026, 11, 21))
    assert [(item.level, item.code) for item in found] == [("refuse", "python-ended")]


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_file_line_and_remedy(name: str) -> None:
    with pytest.raises(SpecError, match=rf"{name}\.yml, {REFUSED[name]}"):
        read(name)


@pytest.mark.parametrize("name", UNSOLVABLE)
def test_what_cannot_be_had_is_explained(name: str, maker: Maker, tmp_path: Path) -> None:
    with pytest.raises(LockError, match=UNSOLVABLE[name]):
        maker.lock(read(name), tmp_path / "pixi.lock")
    assert not (tmp_path / "pixi.lock").exists()


def test_what_pip_is_asked_for_is_read_as_pip_reads_it() -> None:
    assert read("pip-mixed").pip == (
        "Jinja2~=3.1",
        'sentencepiece>=0.2; sys_platform == "linux"',
        "transformers[torch]==4.44.*",
    )

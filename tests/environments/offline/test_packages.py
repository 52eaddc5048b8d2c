"""Packages of the offline channel: what PyPI has, in conda's form."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement
from rattler import BuildString, MatchSpec, PackageRecord
from rattler.package_streaming import extract

from environments import offline
from environments.errors import BuildError
from environments.offline.package import PLACEHOLDER, Member, Metadata, write_package
from environments.offline.wheel import Wheel
from environments.spec import EnvironmentSpec, parse_spec

WriteSpec = Callable[..., EnvironmentSpec]


def make_wheel(
    folder: Path,
    name: str,
    tags: str = "py3-none-any",
    requires: tuple[str, ...] = (),
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """A small wheel; its files are ``<name>.py`` unless given."""
    stem = f"{name}-1.5"
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.5\nRequires-Python: >=3.9\n"
    metadata += "".join(f"Requires-Dist: {item}\n" for item in requires)
    path = folder / f"{stem}-{tags}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in (files or {f"{name}.py": b"VALUE = 1\n"}).items():
            archive.writestr(file, data)
        archive.writestr(f"{stem}.dist-info/METADATA", metadata)
        archive.writestr(
            f"{stem}.dist-info/entry_points.txt", "[console_scripts]\nSay-It = alpha.cli:main\n"
        )
    return path


def unpacked(package: Path, folder: Path) -> Path:
    extract(package, folder)
    return folder


def wheels(*paths: Path, python: str = "3.11.2") -> dict[str, Wheel]:
    return {wheel.name: wheel for wheel in (Wheel(path, python) for path in paths)}


def test_a_pure_wheel_serves_every_python(tmp_path: Path) -> None:
    found = wheels(make_wheel(tmp_path, "alpha", requires=("Be_ta[x] ~=2.0; os_name == 'posix'",)))
    metadata = found["alpha"].metadata(found)
    assert metadata.path == "noarch/alpha-1.5-pyh0_0.conda"
    assert metadata.index()["depends"] == ["be-ta ~=2.0", "python >=3.9"]
    folder = unpacked(found["alpha"].write(tmp_path, metadata), tmp_path / "out")
    assert (folder / "site-packages/alpha.py").exists()
    assert '"Say-It = alpha.cli:main"' in (folder / "info/link.json").read_text()


def test_a_wheel_with_python_markers_is_made_for_each_python(tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "alpha", requires=("typing-extensions; python_version < '3.12'",))
    older, newer = wheels(path), wheels(path, python="3.13.5")
    assert older["alpha"].metadata(older).index()["depends"] == [
        "python >=3.11,<3.12.0a0",
        "typing-extensions",
    ]
    assert newer["alpha"].metadata(newer).index()["depends"] == ["python >=3.13,<3.14.0a0"]


def test_a_platform_wheel_says_which_glibc_it_needs(tmp_path: Path) -> None:
    tags = "cp311-cp311-manylinux_2_28_x86_64.manylinux_2_27_x86_64"
    found = wheels(make_wheel(tmp_path, "alpha", tags))
    metadata = found["alpha"].metadata(found)
    assert metadata.path == "linux-64/alpha-1.5-py311h0_0.conda"
    assert "__glibc >=2.27" in metadata.depends


def test_what_an_extra_needs_is_needed_by_who_asks_for_it(tmp_path: Path) -> None:
    found = wheels(
        make_wheel(tmp_path, "alpha", requires=("beta[fast]",)),
        make_wheel(tmp_path, "beta", requires=("gamma; extra == 'fast'", "delta; extra == 'x'")),
    )
    assert found["alpha"].metadata(found).requires == ("beta", "gamma", "python>=3.9")
    assert found["beta"].metadata(found).requires == ("python>=3.9",)


def test_programs_start_with_the_environments_python(tmp_path: Path) -> None:
    files = {
        "alpha-1.5.data/scripts/run": b"#!python\nprint(1)\n",
        "alpha-1.5.data/data/share/x": b"x",
    }
    found = wheels(make_wheel(tmp_path, "alpha", "cp311-cp311-linux_x86_64", files=files))
    alpha = found["alpha"]
    folder = unpacked(alpha.write(tmp_path, alpha.metadata(found)), tmp_path / "out")
    assert (folder / "share/x").read_bytes() == b"x"
    for program in ("run", "Say-It"):
        text = (folder / "bin" / program).read_text()
        assert text.startswith(f"#!{PLACEHOLDER}/bin/python\n")
        assert (folder / "bin" / program).stat().st_mode & 0o111
        assert f'"bin/{program}"' in (folder / "info/has_prefix").read_text()


@pytest.mark.parametrize("evil", ["../evil", "/etc/evil", "alpha-1.5.data/data/../../evil"])
def test_a_wheel_with_files_outside_is_refused(tmp_path: Path, evil: str) -> None:
    found = wheels(make_wheel(tmp_path, "alpha", files={evil: b"x"}))
    metadata = found["alpha"].metadata(found)
    with pytest.raises(BuildError, match="outside"):
        found["alpha"].write(tmp_path, metadata)
    assert not (tmp_path / metadata.path).exists()


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "alpha-1.5-py3-none-any.whl"
    path.write_bytes(b"not a zip")
    with pytest.raises(BuildError, match="not a wheel"):
        Wheel(path, "3.11.2")


def test_equal_contents_make_equal_packages(tmp_path: Path) -> None:
    digests = set()
    for copy in ("one", "two"):
        metadata = Metadata("alpha", "1.0", "0", noarch="generic")
        path = write_package(tmp_path / copy, metadata, [Member("share/a", b"a" * 5000)])
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_an_interrupted_package_is_never_seen(tmp_path: Path) -> None:
    def members() -> Iterator[Member]:
        yield Member("share/a", b"a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_package(tmp_path, Metadata("alpha", "1.0", "0", noarch="generic"), members())
    assert not list(tmp_path.rglob("*.conda"))


@pytest.mark.parametrize(
    ("dependency", "requirement"),
    [
        ("numpy 1.26.*", "numpy==1.26.*"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy >=2,<3", "numpy>=2,<3"),
        ("numpy 1.26|2.0", "numpy"),
        ("numpy", "numpy"),
        ("numpy * *_0", "numpy"),
        ("jupyter_client >=8", "jupyter-client>=8"),
        ("pytorch ~=2.5", "torch~=2.5"),
        ("numpy =2.0.0rc1", "numpy==2.0.0rc1"),
    ],
)
def test_conda_specs_become_requirements_for_pip(
    write_spec: WriteSpec, dependency: str, requirement: str
) -> None:
    spec = write_spec("python 3.13.*", dependency)
    assert offline.pypi_requirements(spec) == sorted(["ipykernel", requirement])


numbers = st.integers(0, 12).map(str)
releases = st.lists(numbers, min_size=1, max_size=4).map(".".join)
clauses = (
    st.tuples(st.sampled_from(["=", "==", ">=", "<=", "<", ">", "!="]), releases).map("".join)
    | st.tuples(st.sampled_from(["=", "==", "!="]), releases).map(lambda pair: f"{''.join(pair)}.*")
    | st.tuples(st.just("~="), releases).map("".join).filter(lambda text: "." in text)
)


@settings(max_examples=300, deadline=None)
@given(st.lists(clauses, min_size=1, max_size=3).map(",".join), st.lists(releases, min_size=1))
def test_whatever_pip_may_fetch_for_a_spec_the_solver_may_take(
    version: str, known: list[str]
) -> None:
    text = f"name: x\nchannels: [x]\ndependencies: ['six {version}']\n"
    spec = parse_spec(text, name=None)
    wanted = Requirement(offline.pypi_requirements(spec)[-1]).specifier
    match = MatchSpec(spec.dependencies[0].spec)
    for each in known:
        record = PackageRecord("six", each, BuildString("0"), 0, "noarch")
        assert match.matches(record) or not wanted.contains(each)


def test_the_newest_python_that_debian_has_and_the_spec_accepts_is_taken(
    write_spec: WriteSpec,
) -> None:
    assert offline.python_minor(write_spec("numpy")) == "3.13"
    assert offline.python_minor(write_spec("python >=3.10,<3.12")) == "3.11"
    assert offline.python_minor(write_spec("python ==3.11.2")) == "3.11"
    with pytest.raises(BuildError, match=r"Python 3\.11 and 3\.13 only"):
        offline.python_minor(write_spec("python 3.9.*"))

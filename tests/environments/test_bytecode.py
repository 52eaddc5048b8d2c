"""Bytecode is compiled once for each package, and is right in every prefix."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from commons.site import Environments
from environments import bytecode
from environments.bytecode import CompileWith, Hands
from environments.channel import Source
from environments.install import install
from environments.lock import Lock
from environments.maker import Maker
from environments.offline.package import PLACEHOLDER, Member, Metadata, write_package
from environments.solve import solve
from environments.spec import EnvironmentSpec, parse_spec
from rig.channel import TinyChannel

# Kept between runs: the first one fetches some 30 MB.
CACHE = Path(__file__).parents[2] / ".cache" / "tests" / "maker"
pytestmark = pytest.mark.channel

SITE = "lib/python3.11/site-packages"
SPEC = "name: mixed\nchannels: [conda-forge, tiny]\ndependencies: [python 3.11.*, here, one, two]\n"


@pytest.fixture
def tiny(tmp_path: Path) -> TinyChannel:
    """``here`` holds its prefix; ``one`` and ``two`` bring the same module with other contents."""
    channel = TinyChannel(tmp_path / "tiny")
    text = f'PREFIX = "{PLACEHOLDER}"\n'.encode()
    member = Member(f"{SITE}/here.py", text, has_prefix=True)
    plain = Member(f"{SITE}/plain.py", b"import sys\nNAME = sys._getframe().f_code.co_filename\n")
    broken = Member(f"{SITE}/template.py", b"class {{ name }}:\n")
    here = Metadata("here", "1.0", "0", (), noarch="generic")
    write_package(channel.folder, here, [member, plain, broken])
    for name in ("one", "two"):
        channel.add(name, files={f"{SITE}/both.py": f"FROM = {name!r}\n".encode()})
    return channel.index()


@dataclass
class Bench:
    """Makes prefixes of one lock with caches of its own."""

    folder: Path
    spec: EnvironmentSpec
    sources: tuple[Source, ...]
    lock: Lock

    def make(
        self,
        name: str,
        cache: str = "cache",
        lent: str | None = None,
        compile_with: CompileWith = bytecode.own_python,
    ) -> Path:
        prefix = self.folder / name
        install(self.spec, self.lock, self.sources, str(prefix), prefix, CACHE / "cache")
        other = self.folder / lent if lent else None
        bytecode.compile_all(prefix, self.lock, self.folder / cache, other, compile_with)
        return prefix


@pytest.fixture
def bench(tiny: TinyChannel, tmp_path: Path) -> Bench:
    CACHE.mkdir(parents=True, exist_ok=True)
    python = parse_spec(
        "name: x\nchannels: [x, nodefaults]\ndependencies: [python 3.11.*]\n", name=None
    )
    settings = Environments(offline_channel="always")
    maker = Maker(settings, CACHE / "channel", CACHE / "cache", lambda _: None)
    [offline] = maker.lock(python, tmp_path / "python.lock").sources
    spec = parse_spec(SPEC, name=None)
    sources = (
        replace(offline, channel="conda-forge"),
        Source("tiny", "https://tiny.invalid/", str(tiny.folder)),
    )
    lock = solve(spec, sources, tmp_path / "locks" / "pixi.lock", tmp_path / "solver")
    return Bench(tmp_path, spec, sources, lock)


def compiled(prefix: Path) -> dict[str, bytes]:
    """All bytecode of a prefix, by its path there."""
    found = prefix.rglob("*.pyc")
    return {path.relative_to(prefix).as_posix(): path.read_bytes() for path in found}


def value(prefix: Path, module: str, name: str) -> object:
    """A module's value as its bytecode has it, whatever its source says by now."""
    path = prefix / SITE / f"{module}.py"
    path.unlink()  # it is one file with the cache's
    path.write_text(f"{name} = 'from the source'\n")  # unchecked: only bytecode is looked at
    command = [prefix / "bin" / "python", "-I", "-B", "-c"]
    done = subprocess.run(
        [*command, f"import {module}; print({module}.{name})"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_the_second_prefix_gets_what_the_first_one_compiled(bench: Bench) -> None:
    one = bench.make("one")
    asked: list[Hands] = []

    def compile_with(prefix: Path, lock: Lock, hands: Hands, work: Path, cache: Path) -> int:
        asked.append(hands)
        return bytecode.own_python(prefix, lock, hands, work, cache)

    two = bench.make("two", compile_with=compile_with)
    assert asked == [[[f"{SITE}/here.py"]]], "what depends on the prefix"
    assert compiled(two).keys() == compiled(one).keys()
    assert len(compiled(two)) > 400, "Python's own library"


def test_what_holds_the_prefix_is_right_in_each_one(bench: Bench) -> None:
    one, two = bench.make("one"), bench.make("two")
    assert value(one, "here", "PREFIX") == str(one)
    assert value(two, "here", "PREFIX") == str(two)


def test_tracebacks_name_the_file_in_its_own_prefix(bench: Bench) -> None:
    for prefix in (bench.make("one"), bench.make("two")):
        assert value(prefix, "plain", "NAME") == str(prefix / SITE / "plain.py")


def test_of_two_packages_with_one_module_the_bytecode_is_the_sources(bench: Bench) -> None:
    for prefix in (bench.make("one"), bench.make("two")):
        source = (prefix / SITE / "both.py").read_text()
        assert source == f"FROM = {value(prefix, 'both', 'FROM')!r}\n"


def test_a_cold_cache_and_a_warm_one_give_the_same_files(bench: Bench) -> None:
    warm = [compiled(bench.make(name)) for name in ("one", "two")][1]
    cold = compiled(bench.make("three", cache="empty"))
    for found in (warm, cold):  # the prefix is in it
        del found[f"{SITE}/__pycache__/here.cpython-311.pyc"]
    assert warm == cold


def test_what_another_user_lends_is_copied_and_never_written(bench: Bench) -> None:
    bench.make("one", cache="theirs")
    before = {path: path.stat().st_mtime_ns for path in (bench.folder / "theirs").rglob("*")}
    two = bench.make("two", cache="mine", lent="theirs")
    assert {
        path: path.stat().st_mtime_ns for path in (bench.folder / "theirs").rglob("*")
    } == before
    lent = {path.stat().st_ino for path in (bench.folder / "theirs").rglob("*.pyc")}
    assert not lent & {path.stat().st_ino for path in two.rglob("*.pyc")}
    mine = {path.stat().st_ino for path in (bench.folder / "mine").rglob("*.pyc")}
    assert len(mine & {path.stat().st_ino for path in two.rglob("*.pyc")}) > 400


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(bench: Bench) -> None:
    (bench.folder / "cache").mkdir()
    (bench.folder / "cache" / "bytecode").write_text("in the way")
    one = bench.make("one")
    assert len(compiled(one)) > 400


def test_what_a_killed_build_left_in_the_cache_is_not_taken(bench: Bench) -> None:
    whole = compiled(bench.make("one"))
    [python] = [item for item in bench.lock.packages if item.name == "python"]
    [place] = (bench.folder / "cache" / "bytecode").iterdir()
    assert place.name == bytecode.home(bench.lock)
    (place / python.sha256).rename(place / f".part-{python.sha256}")
    shutil.rmtree(place / f".part-{python.sha256}" / "lib" / "python3.11" / "json")
    again = compiled(bench.make("two"))
    assert again.keys() == whole.keys()

"""What a builder does in its container, tried as a process of its own on a real channel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from commons.scopes import personal
from commons.site import Environments
from commons.store import Store
from environments.builds import repository
from rig.channel import TinyChannel
from rig.web import web

KERNEL = {"argv": ["sh-kernel", "{connection_file}"], "display_name": "sh", "language": "sh"}


class Bench:
    """A channel, a folder of environments, and jobs on them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.envs = folder, folder / "team" / "envs"
        self.envs.mkdir(parents=True)
        self.tiny = TinyChannel(folder / "tiny")
        files = {
            "share/jupyter/kernels/sh/kernel.json": json.dumps(KERNEL).encode(),
            "bin/sh-kernel": b"#!/bin/sh\n",
        }
        self.tiny.add("sh-kernel", "1.0", files=files)
        self.tiny.add("alpha", "1.0")
        self.tiny.index()

    def spec(self, *packages: str) -> str:
        listed = "".join(f"  - {item}\n" for item in ("sh-kernel", *packages))
        return f"channels: [{self.tiny.folder}]\ndependencies:\n{listed}"

    def run(self, work: str, **job: Any) -> tuple[int, list[dict[str, Any]]]:
        settings = Environments.model_validate({"policy": {"unlocked": "allow"}})
        whole = {
            "work": work, "name": "py", "words": "", "umask": "027", "source": "team-vision",
            "environments": str(self.envs), "settings": settings.model_dump(mode="json"),
            "channel": str(self.folder / "offline"), "cache": str(self.folder / "cache"),
            "lock": "", "sources": [], "in_use": [], "keep": 2, "tags": {}, **job,
        }  # fmt: skip
        place = self.folder / "job"
        place.mkdir(exist_ok=True)
        (place / "job.json").write_text(json.dumps(whole))
        done = subprocess.run(
            [sys.executable, "-m", "environments.builds.task_main", str(place)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert not done.stderr, done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def build(self, *packages: str, **job: Any) -> dict[str, Any]:
        return self.build_of(self.spec(*packages), **job)

    def build_of(self, spec: str, **job: Any) -> dict[str, Any]:
        code, said = self.run("lock", spec=spec, words=job.get("words", ""))
        assert code == 0, said
        locked = said[-1]["result"]
        code, said = self.run("install", spec=spec, **locked, **job)
        assert code == 0, said
        result: dict[str, Any] = said[-1]["result"]
        assert result["version"] == locked["chosen"]["version"]
        return locked["chosen"] | result | {"locked": locked, "said": said}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_version_is_built_beside_and_the_link_moves_to_it(bench: Bench) -> None:
    first = bench.build()
    link = bench.envs / "py"
    assert os.readlink(link) == f".versions/py/{first['version']}"
    second = bench.build("alpha")
    assert os.readlink(link) == f".versions/py/{second['version']}"
    assert sorted(second["kept"]) == sorted([first["version"], second["version"]])
    assert (link / "share/alpha").read_text() == "1.0"
    assert second["kernels"]["sh"]["language"] == "sh"
    assert {package["name"] for package in second["packages"]} == {"alpha", "sh-kernel"}
    assert "environment.yml" in second["exports"]
    percents = [line["progress"]["percent"] for line in second["said"] if "progress" in line]
    assert percents == sorted(percents)


def test_the_same_lock_is_the_same_version_and_takes_no_time(bench: Bench) -> None:
    first = bench.build()
    again = bench.build()
    assert again["version"] == first["version"]
    assert not any("installing" in str(line) for line in again["said"])


def test_a_lock_in_place_of_the_spec_is_built_and_so_is_pixis_manifest(bench: Bench) -> None:
    """The kind: what people have that is no environment.yml. Newer packages change a lock's not."""
    first = bench.build("alpha")
    bench.tiny.add("alpha", "2.0")
    bench.tiny.index()
    locks = {**first["exports"], "pixi.lock": first["locked"]["lock"]}
    for format in ("explicit", "conda-lock", "pixi.lock"):
        again = bench.build_of(locks[format])
        assert again["lock_digest"] == first["lock_digest"]
        assert again["packages"] == first["packages"]
        assert again["kernels"] == first["kernels"]
        assert again["exports"]["environment.yml"]
    manifest = (
        f'[workspace]\nchannels = ["{bench.tiny.folder}"]\nplatforms = ["linux-64"]\n'
        '[dependencies]\nsh-kernel = "*"\nalpha = ">=1"\n[activation.env]\nTITLE = "x"\n'
    )
    made = bench.build_of(manifest)
    assert {item["name"]: item["version"] for item in made["packages"]}["alpha"] == "2.0"
    state = json.loads((bench.envs / "py/conda-meta/state").read_text())
    assert state["env_vars"] == {"TITLE": "x"}


def test_what_counts_for_nothing_is_told_with_the_version(bench: Bench) -> None:
    """The kind: an unknown key, a selector in a comment, another platform: no refusal."""
    spec = bench.spec("alpha  # [linux]") + "extras: {a: [b]}\nplatforms: [osx-arm64, linux-64]\n"
    findings = bench.build_of(spec)["findings"]
    assert [(item["level"], item["code"]) for item in findings] == [("warn", "spec")] * 3
    assert "line 5: 'extras' counts for nothing" in findings[0]["message"]


def test_old_versions_go_but_not_what_is_in_use(bench: Bench) -> None:
    built = []
    for number in range(4):
        bench.tiny.add("alpha", f"2.{number}")
        bench.tiny.index()
        used = built[:1]
        built.append(bench.build(f"alpha =2.{number}", keep=1, in_use=used)["version"])
        time.sleep(0.02)
    versions = bench.envs / ".versions/py"
    left = {path.name for path in versions.iterdir() if not path.name.startswith(".")}
    assert left == {built[0], built[-1]}


def test_in_a_teams_folder_versions_are_the_members_and_the_rest_the_leads(bench: Bench) -> None:
    if os.geteuid():
        pytest.skip("needs root, to give a folder to a group")
    os.chown(bench.envs, -1, 21002)
    bench.envs.chmod(0o2775)
    built = bench.build()
    versions = bench.envs / ".versions"
    assert (versions.stat().st_gid, oct(versions.stat().st_mode & 0o7777)) == (21002, "0o2775")
    one = versions / "py"
    assert (one.stat().st_gid, oct(one.stat().st_mode & 0o7777)) == (21002, "0o775")
    prefix = one / built["version"]
    assert prefix.stat().st_gid == os.getegid()
    assert oct(prefix.stat().st_mode & 0o7777) == "0o750"
    for path in prefix.rglob("*"):
        if not path.is_symlink():
            assert not path.stat().st_mode & 0o027, path
            assert path.stat().st_mode & 0o040, path


def test_shared_ones_are_for_everybody_to_read_and_nobody_to_write(bench: Bench) -> None:
    prefix = bench.envs / ".versions/py" / bench.build(umask="022")["version"]
    modes = {oct(path.stat().st_mode & 0o777) for path in [prefix, *prefix.rglob("*")]}
    assert modes <= {"0o755", "0o644"}


def test_a_folder_that_conda_made_is_not_replaced(bench: Bench) -> None:
    (bench.envs / "py").mkdir()
    spec = bench.spec()
    _, said = bench.run("lock", spec=spec)
    code, said = bench.run("install", spec=spec, **said[-1]["result"])
    assert code == 1
    assert "was not built here" in said[-1]["error"]


def test_a_spec_that_is_wrong_is_told_with_its_line(bench: Bench) -> None:
    code, said = bench.run("lock", spec="channels: [x]\ndependencies:\n\t- numpy\n")
    assert code == 1
    assert "line 3" in said[-1]["error"]


def test_a_copy_keeps_its_lock_whatever_the_channel_has_now(bench: Bench) -> None:
    first = bench.build("alpha")
    bench.tiny.add("alpha", "9.0")
    bench.tiny.index()
    code, said = bench.run("lock", spec=bench.spec("alpha"), lock=first["locked"]["lock"])
    assert code == 0, said
    assert said[-1]["result"]["lock"] == first["locked"]["lock"]
    assert said[-1]["result"]["sources"] == first["locked"]["sources"]


def test_what_is_decided_about_a_version_is_in_its_folder(bench: Bench) -> None:
    built = bench.build(words="tag: 1.0.0\n")
    assert built["tag"] == "1.0.0"
    version = built["version"]
    notes = {"tag": "1.0.1", "deprecated": "2026-11-21", "withdrawn": "wrong units"}
    code, said = bench.run("decide", version=version, notes=notes)
    assert code == 0, said
    folder = bench.envs / "py" / "conda-meta" / "labcommons"
    stamp = json.loads((folder / "version.json").read_text())
    assert {key: stamp[key] for key in notes} == notes
    assert stamp["version"] == version
    assert folder.joinpath("version.json").stat().st_mode & 0o777 == 0o640
    code, said = bench.run("decide", version="20200101-00000000", notes=notes)
    assert (code, "is not there" in said[-1]["error"]) == (1, True)


def test_what_was_made_in_a_terminal_is_found(bench: Bench, tmp_path: Path) -> None:
    built = bench.build()
    shutil.copytree(bench.envs / "py", bench.envs / "by-hand", symlinks=True)
    shutil.rmtree(bench.envs / "by-hand" / "conda-meta" / "labcommons")
    for name in ("No Name", "half-made"):
        (bench.envs / name / "conda-meta").mkdir(parents=True)
    (bench.envs / "loop").symlink_to("loop")
    _, said = bench.run("look", known={"py": f"sha256:{built['lock_digest']}"})
    by_hand, py = said[-1]["result"]["environments"]
    assert (py["name"], py["version"], "packages" in py) == ("py", built["version"], False)
    assert (by_hand["name"], by_hand["version"]) == ("by-hand", "live")
    assert [item["name"] for item in by_hand["packages"]] == ["sh-kernel"]
    assert "sh-kernel=1.0=0" in by_hand["exports"]["environment.yml"]
    _, said = bench.run("look", known={"by-hand": by_hand["digest"], "py": py["digest"]})
    assert all("packages" not in item for item in said[-1]["result"]["environments"])

    store = Store(f"sqlite:///{tmp_path}/labcommons.sqlite")
    store.migrate()
    scope = personal("alice")

    def names() -> list[tuple[str, str]]:
        rows = store.transact(lambda s: repository.of_scopes(s, [scope]), read=True)
        return [(row.name, row.version) for row in rows]

    odd = [by_hand | {"name": name} for name in ("../up", "a'\"<b>", "x" * 2**20, None, ["a"])]
    store.transact(lambda s: repository.seen(s, scope, [by_hand, *odd]))
    store.transact(lambda s: repository.seen(s, scope, [by_hand]))
    assert names() == [("by-hand", "live")]
    row = store.transact(lambda s: repository.current(s, scope, "by-hand"), read=True)
    assert row is not None
    assert row.spec.endswith(by_hand["exports"]["environment.yml"])
    store.transact(lambda s: repository.seen(s, scope, []))
    assert names() == []
    store.close()


def test_packages_behind_a_login_are_fetched_for_who_does_not_have_it(
    bench: Bench, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret-t0ken\n")
    with web(bench.tiny.folder, login="Bearer s3cret-t0ken") as place:
        host = place.removeprefix("http://")
        spec = f"channels: [{place}]\ndependencies: [sh-kernel]\n"
        settings = {"policy": {"unlocked": "allow"}}
        login = {"credentials": {host: {"token_file": str(token)}}}
        code, said = bench.run("lock", spec=spec, settings=settings)
        assert code == 1, "without the login nothing is had"
        private = tmp_path / "private"
        code, said = bench.run("lock", spec=spec, settings=settings | login, private=str(private))
        assert code == 0, said
        assert "s3cret" not in json.dumps(said)
    locked = said[-1]["result"]
    assert [source["place"] for source in locked["sources"]] == [str(private / "0")]
    # The server is gone, and there is no login: the folder is enough.
    code, said = bench.run("install", spec=spec, settings=settings, **locked)
    assert code == 0, said
    record = bench.envs / "py" / "conda-meta" / "sh-kernel-1.0-0.json"
    assert json.loads(record.read_text())["url"].startswith(place)
    assert "s3cret" not in record.read_text()


def test_a_tag_is_one_set_of_packages(bench: Bench) -> None:
    spec = bench.spec("alpha")
    _, said = bench.run("lock", spec=spec)
    code, said = bench.run(
        "install", spec=spec, words="tag: 1.0.0\n", tags={"1.0.0": "another"},
        **said[-1]["result"],
    )  # fmt: skip
    assert code == 1
    assert "raise 'tag' in labcommons.yml" in said[-1]["error"]


def test_killed_at_any_moment_an_install_offers_nothing_half_made(bench: Bench) -> None:
    spec = bench.spec("alpha")
    _, said = bench.run("lock", spec=spec)
    bench.run("install", spec=bench.spec(), **bench.run("lock", spec=bench.spec())[1][-1]["result"])
    before = os.readlink(bench.envs / "py")
    job = json.loads((bench.folder / "job/job.json").read_text())
    job |= {"spec": spec, **said[-1]["result"]}
    (bench.folder / "job/job.json").write_text(json.dumps(job))
    for delay in (0.3, 0.6, 0.9, 1.2):
        child = subprocess.Popen(
            [sys.executable, "-m", "environments.builds.task_main", str(bench.folder / "job")],
            stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(delay)
        child.kill()
        child.wait()
        target = os.readlink(bench.envs / "py")
        assert target == before or (bench.envs / target / "conda-meta/history").is_file()
    result = bench.build("alpha")
    assert os.readlink(bench.envs / "py") == f".versions/py/{result['version']}"
    left = {path.name for path in (bench.envs / ".versions/py").iterdir() if path.is_dir()}
    assert not any(name.startswith(".making") for name in left)


def test_deleting_takes_all_versions_and_follows_no_link(bench: Bench) -> None:
    bench.build()
    bench.build("alpha")
    outside = bench.folder / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    (bench.envs / ".versions/py/evil").symlink_to(outside)
    code, said = bench.run("delete", spec="")
    assert code == 0, said
    assert [path.name for path in bench.envs.iterdir()] == [".versions"]
    assert list((bench.envs / ".versions").iterdir()) == []
    assert (outside / "precious").exists()
    assert bench.run("delete", spec="")[0] == 0


def test_what_a_change_does_not_touch_keeps_its_version(bench: Bench) -> None:
    """The lock of what was edited is preferred, so that a copy with one package more is quick."""
    before = bench.build("alpha")
    bench.tiny.add("alpha", "2.0")
    bench.tiny.add("beta", "1.0")
    bench.tiny.add("gamma", "1.0", depends=("alpha >=2",))
    bench.tiny.index()
    lock = before["locked"]["lock"]

    def chosen(*packages: str, lock: str = lock) -> dict[str, str]:
        code, said = bench.run("lock", spec=bench.spec(*packages), lock=lock)
        assert code == 0, said
        return {one["name"]: one["version"] for one in said[-1]["result"]["chosen"]["packages"]}

    assert chosen("alpha", "beta") == {"alpha": "1.0", "beta": "1.0", "sh-kernel": "1.0"}
    assert chosen("alpha", "beta", lock="")["alpha"] == "2.0"
    # But where the change wants another one.
    assert chosen("alpha", "gamma")["alpha"] == "2.0"
    assert chosen("alpha >=2")["alpha"] == "2.0"
    # A lock of other channels, or one that cannot be read, is no reason to fail.
    moved = lock.replace(str(bench.tiny.folder), "/nowhere")
    assert chosen("alpha", "beta", lock=moved)["alpha"] == "2.0"


def test_a_missing_kernel_is_said_before_anything_is_installed(bench: Bench) -> None:
    bench.tiny.add("python", "3.13.0")
    bench.tiny.index()
    spec = bench.spec("python").replace("  - sh-kernel\n", "")
    code, said = bench.run("lock", spec=spec)
    assert (code, said[-1]["kind"]) == (1, "kernel")
    assert said[-1]["message"]["data"]["package"] == "ipykernel"
    assert list(bench.envs.iterdir()) == []

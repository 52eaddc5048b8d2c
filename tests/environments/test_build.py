"""From environment.yml to an image, on a real Engine and a real channel of PyPI's and Debian's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, cast

import docker
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from docker.errors import DockerException, ImageNotFound
from requests.exceptions import RequestException

from commons.errors import RuntimeRefused
from commons.signatures.check import ENVELOPE, Checker, Image
from commons.signatures.signer import Signer
from commons.site import Environments, GpuDeviceSpec, Gpus, Signatures
from commons.store import GpuQuota, Store
from commons.store.models import utcnow
from commons.store.usage import Started, add_starts
from environments import catalog, doctor, offline
from environments.build import Builder, Places
from environments.doctor import examine
from environments.errors import BuildError
from environments.files import FILE_NAMES
from environments.progress import Progress
from environments.provenance import Provenance
from environments.prune import Keeping, prune
from rig import agent
from rig.channel import TinyChannel
from rig.images import glibc, imported
from spawner.runtime.docker.images import Images as DockerImages
from spawner.runtime.docker.settings import AgentSettings
from spawner.runtime.protocol import EngineState
from spawner.runtime.spec import CDI

# Kept between runs, as the channel itself is: the first one fetches some 30 MB.
CACHE = Path(__file__).parents[2] / ".cache" / "tests" / "environments"
NAME = "lc-tests-tiny"


@pytest.fixture(scope="module")
def engine() -> Any:
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except (DockerException, RequestException, OSError) as error:
        pytest.fail(
            f"no Docker Engine answers ({error}); run the tests with `make test`, which brings "
            "one, or set DOCKER_HOST"
        )
    return client.api


@pytest.fixture(scope="module")
def server_image(engine: Any) -> Iterator[str]:
    """A stand-in for the server image: the environment brings everything but the C library."""
    image = imported(engine, glibc(), uuid.uuid4().hex)
    yield image
    engine.remove_image(image, force=True)


@dataclass
class Bench:
    """A builder in folders of its own, and what it said."""

    builder: Builder
    store: Store
    said: list[Progress] = field(default_factory=list)

    def write(
        self, *dependencies: str, name: str = NAME, channel: str = "x", title: str = "Tiny"
    ) -> None:
        folder = self.builder.places.environments / name
        folder.mkdir(parents=True, exist_ok=True)
        document = {"name": name, "channels": [channel], "dependencies": dependencies}
        (folder / "environment.yml").write_text(json.dumps(document))
        (folder / "labcommons.yml").write_text(json.dumps({"title": title}))

    def newest(self) -> catalog.CatalogEntry | None:
        found = self.store.transact(catalog.newest, read=True).get(NAME)
        return found[0] if found else None


SPEC = ("python 3.11.*", "ipykernel", "six")


@pytest.fixture(scope="module")
def workshop(
    tmp_path_factory: pytest.TempPathFactory, server_image: str, engine: Any
) -> Iterator[Bench]:
    """One catalog and one set of folders for all tests: a build takes its time."""
    folder = tmp_path_factory.mktemp("environments")
    store = Store(f"sqlite:///{folder}/labcommons.sqlite")
    store.migrate()
    data = folder / "data"
    data.mkdir()
    for kept in ("channel", "cache"):
        (CACHE / kept).mkdir(parents=True, exist_ok=True)
        (data / kept).symlink_to(CACHE / kept)
    said: list[Progress] = []
    builder = Builder(
        Environments(offline_channel="always"),
        Places(folder / "environments", data),
        store,
        said.append,
        server_image,
        agent.images(server_image, CACHE),
    )
    yield Bench(builder, store, said)
    store.close()
    for image in engine.images(f"labcommons/env-{NAME}"):
        engine.remove_image(image["Id"], force=True)


@pytest.fixture
def bench(workshop: Bench, server_image: str) -> Bench:
    """The workshop with its environment built and nothing said yet."""
    workshop.builder.settings = Environments(offline_channel="always")
    workshop.builder.server_image = server_image
    workshop.write(*SPEC)
    workshop.builder.build(NAME)
    workshop.said.clear()
    return workshop


pytestmark = [pytest.mark.docker, pytest.mark.channel]


def ours(engine: Any) -> set[str]:
    """The images with the label of the tests' environment."""
    label = {"label": f"labcommons.environment={NAME}"}
    return {image["Id"] for image in engine.images(all=True, filters=label)}


def run(engine: Any, image: str, *command: str) -> str:
    """The output of a command in a container without rights, network or disk."""
    limits = engine.create_host_config(network_mode="none", cap_drop=["ALL"], read_only=True)
    container = engine.create_container(
        image, [], entrypoint=list(command), user="12345", host_config=limits
    )
    try:
        engine.start(container)
        engine.wait(container, timeout=60)
        return str(engine.logs(container).decode())
    finally:
        engine.remove_container(container, force=True)


def test_an_environment_becomes_an_image_with_a_row_in_the_catalog(
    bench: Bench, engine: Any
) -> None:
    entry = bench.newest()
    assert entry is not None
    assert re.fullmatch(r"\d{8}-[0-9a-f]{8}", entry.version)
    assert entry.image == f"labcommons/env-{NAME}:{entry.version}"
    assert entry.main_packages[0]["name"] == "six"
    assert "python3" in entry.kernelspecs
    assert {"python", "ipykernel", "six"} <= {package["name"] for package in entry.packages}

    image = engine.inspect_image(entry.image)
    assert image["Id"] == entry.image_id
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == "Tiny"
    assert labels["org.opencontainers.image.version"] == entry.version
    assert labels["labcommons.environment"] == NAME
    assert labels["labcommons.lock-digest"] == entry.lock_digest
    assert labels["labcommons.python"] == entry.python
    assert labels["labcommons.version"] == entry.version
    kept = bench.builder.places.versions / NAME / entry.version
    assert {path.name for path in kept.iterdir()} == {
        "environment.yml",
        "exports",
        "labcommons.yml",
        "pixi.lock",
        "sbom.cdx.json",
        "version.json",
    }
    assert {path.name for path in (kept / "exports").iterdir()} == set(FILE_NAMES.values())
    shutil.rmtree(kept / "exports")  # as of a version that was built before they were kept
    assert not bench.builder.build(NAME).is_new
    assert (kept / "exports" / "explicit.txt").read_text().count("#sha256:") > 10
    assert json.loads((kept / "version.json").read_bytes())["version"] == entry.version
    assert json.loads(labels["labcommons.kernels"]) == entry.kernelspecs

    program = "import sys, six, sqlite3, ssl; print(sys.prefix, six.__cached__)"
    said = run(engine, entry.image, f"{entry.prefix}/bin/python", "-c", program)
    assert said.split() == [
        entry.prefix,
        f"{entry.prefix}/lib/python3.11/site-packages/__pycache__/six.cpython-311.pyc",
    ]


def test_an_image_is_signed_and_only_what_was_signed_can_be_started(
    bench: Bench, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bench.builder.places.data
    checker = Checker(Signatures(policy="refuse"), data)
    stated = Provenance(checker, "alice", patience=20)
    monkeypatch.setattr(bench.builder, "provenance", stated)
    (data / "signing").mkdir(exist_ok=True)
    before = bench.newest()
    assert before is not None  # built without a word about it: to be built again
    with signing(checker):
        outcome = bench.builder.build(NAME)
    entry = outcome.entry
    assert outcome.is_new
    assert entry.version == before.version
    found = engine.inspect_image(entry.image_id)
    image = Image(NAME, entry.version, found["Id"], entry.lock_digest)
    image = replace(image, layers=tuple(found["RootFS"]["Layers"]))
    verdict = checker.files(image)
    assert (verdict.state, verdict.why) == ("signed", None)
    assert verdict.facts is not None
    assert verdict.facts.asked_by == "alice"
    assert verdict.facts.materials == len(entry.packages) + 3
    assert not bench.builder.build(NAME).is_new

    site = agent.SITE.model_copy(update={"signatures": checker.settings})
    asked = AgentSettings(site, found["Config"]["Labels"]["labcommons.site"], data, data, "none")
    started = DockerImages(cast(Any, None), asked, cast(Any, None))
    started.check_startable(engine, entry.image_id, NAME, entry.version)
    (checker.folder(NAME, entry.version) / ENVELOPE).write_bytes(b"{}")
    with pytest.raises(RuntimeRefused, match=r"cannot be read.*labcommons env build"):
        started.check_startable(engine, entry.image_id, NAME, entry.version)
    monkeypatch.setattr(bench.builder, "provenance", replace(stated, patience=0.0))
    with pytest.raises(BuildError, match=r"not offered.*signer"):
        bench.builder.build(NAME)
    assert bench.newest() == entry


@contextmanager
def signing(checker: Checker) -> Iterator[None]:
    """The service signer, beside."""
    over = threading.Event()
    signer = Signer(Ed25519PrivateKey.generate(), checker)
    signer.tell_key()

    def work() -> None:
        while not over.wait(0.05):
            signer.look()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    over.set()
    thread.join()


def test_the_image_keeps_what_the_server_image_says_of_itself(bench: Bench, engine: Any) -> None:
    entry = bench.newest()
    assert entry is not None
    base = engine.inspect_image(bench.builder.server_image)["Config"]
    config = engine.inspect_image(entry.image)["Config"]
    for key in ("Cmd", "Entrypoint", "Env", "User", "WorkingDir", "Hostname"):
        assert config.get(key) == base.get(key), key


def test_building_again_changes_nothing_and_asks_nobody(bench: Bench) -> None:
    before = bench.newest()
    again = bench.builder.build(NAME)
    assert again.entry == before
    assert not again.is_new
    assert bench.said == []


def test_a_new_title_is_shown_without_a_new_build(bench: Bench) -> None:
    before = bench.newest()
    assert before is not None
    bench.write(*SPEC, title="Renamed")
    outcome = bench.builder.build(NAME)
    assert not outcome.is_new
    assert outcome.entry.image_id == before.image_id
    assert outcome.entry == bench.newest()
    assert outcome.entry.words["title"] == "Renamed"


def test_an_image_that_was_lost_is_built_again_as_the_same_version(
    bench: Bench, engine: Any
) -> None:
    before = bench.newest()
    assert before is not None
    engine.remove_image(before.image_id, force=True)
    outcome = bench.builder.build(NAME)
    assert outcome.is_new
    assert outcome.entry.version == before.version
    assert engine.inspect_image(before.image)["Id"] == outcome.entry.image_id


def test_what_cannot_be_had_leaves_the_old_version_in_place(bench: Bench, engine: Any) -> None:
    before = bench.newest()
    assert before is not None
    bench.write(*SPEC, "six-that-does-not-exist-anywhere")
    with pytest.raises(BuildError, match="six-that-does-not-exist-anywhere"):
        bench.builder.build(NAME)
    assert bench.newest() == before
    assert engine.inspect_image(before.image)["Id"] == before.image_id


def test_an_image_that_fails_its_check_is_neither_offered_nor_kept(
    bench: Bench, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = bench.newest()
    open_file = {f"opt/conda/envs/{NAME}/lib/open": (b"anyone may write here", 0o666)}
    bench.builder.server_image = imported(engine, glibc() | open_file, uuid.uuid4().hex)
    images = agent.images(bench.builder.server_image, CACHE)
    monkeypatch.setattr(bench.builder, "images", images)
    base = engine.inspect_image(bench.builder.server_image)["Id"]
    before = ours(engine)
    try:
        with pytest.raises(BuildError, match=r"others could change .*/lib/open"):
            bench.builder.build(NAME)
        assert ours(engine) == before
        assert base in {image["Id"] for image in engine.images(all=True)}
    finally:
        engine.remove_image(bench.builder.server_image, force=True)
    assert bench.newest() == old


def test_an_environment_without_a_kernel_is_refused_with_the_remedy(
    bench: Bench, channel: TinyChannel
) -> None:
    old = bench.newest()
    bench.builder.settings = Environments()
    bench.write("beta", channel=str(channel.folder))
    with pytest.raises(BuildError, match="add '- ipykernel' for Python"):
        bench.builder.build(NAME)
    assert bench.newest() == old


def test_without_the_server_image_the_build_says_which_one_is_missing(bench: Bench) -> None:
    bench.builder.server_image = "lc-tests/nowhere:1"
    with pytest.raises(BuildError, match="lc-tests/nowhere:1"):
        bench.builder.build(NAME)


def test_the_offline_channel_is_made_once(bench: Bench) -> None:
    index = offline.index_digest(bench.builder.places.channel)
    bench.builder.lock(NAME)
    assert not any("offline channel: " in str(line) for line in bench.said)
    assert offline.index_digest(bench.builder.places.channel) == index


@pytest.fixture
def way(tmp_path: Path, bench: Bench) -> Iterator[dict[str, str]]:
    """Variables by which a command finds the agent."""
    with agent.beside(bench.builder.server_image, CACHE, tmp_path / "tls") as variables:
        yield variables


def test_the_command_builds_lists_and_fails_with_the_right_status(
    bench: Bench, engine: Any, tmp_path: Path, way: dict[str, str]
) -> None:
    bench.write("python 3.11.*", "six-that-does-not-exist-anywhere", name="broken")
    site = tmp_path / "site.yaml"
    site.write_text(
        "version: 1\n"
        "directory: {servers: [ldaps://d.example.org], users: {base_dn: dc=x}}\n"
        "sizes: {small: {cpu: 1, memory: 1G}}\n"
        "environments: {offline_channel: always}\n"
    )

    def labcommons(*arguments: str) -> subprocess.CompletedProcess[str]:
        places = bench.builder.places
        variables = {
            **os.environ,
            "LABCOMMONS_CONFIG": str(places.environments.parent),
            "LABCOMMONS_DATA": str(places.data),
            "LABCOMMONS_SITE_FILE": str(site),
            "LABCOMMONS_DATABASE_URL": bench.store.url,
            **way,
        }
        command = [sys.executable, "-m", "hub_ext.cli", "env", *arguments]
        return subprocess.run(
            command, env=variables, capture_output=True, text=True, check=False, timeout=600
        )

    image = ("--server-image", bench.builder.server_image)
    done = labcommons("build", "--all", "--json", *image)
    assert done.returncode == 1, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows[NAME]["state"] == "up to date", done.stderr
    assert "six-that-does-not-exist-anywhere" in rows["broken"]["error"]
    first = json.loads(done.stderr.splitlines()[0])
    assert (first["environment"], first["step"], first["percent"]) == ("broken", 1, 0)

    listed = labcommons("list", "--json")
    assert [row["image"] for row in json.loads(listed.stdout)] == [rows[NAME]["image"]]
    assert rows[NAME]["version"] in labcommons("list").stdout
    assert labcommons("build", NAME, *image).returncode == 0

    pruned = json.loads(labcommons("prune", "--dry-run", "--json").stdout)
    assert (pruned["cache_freed"], pruned["channel_freed"]) == (0, 0)

    assert labcommons("build").returncode == 2
    unknown = labcommons("build", "nope")
    assert unknown.returncode == 2
    assert NAME in unknown.stderr
    with pytest.raises(ImageNotFound):
        engine.inspect_image("labcommons/env-broken")


def test_an_old_version_goes_when_nobody_uses_it_any_more(bench: Bench, engine: Any) -> None:
    newest = bench.newest()
    assert newest is not None
    labels = {"labcommons.environment": f"{NAME}:20250101-00000000", "labcommons.user": "alice"}
    made = engine.create_container(newest.image_id, ["x"])["Id"]
    old_image = engine.commit(made, repository=f"labcommons/env-{NAME}", tag="old")["Id"]
    engine.remove_container(made)
    container = engine.create_container(old_image, ["x"], labels=labels)["Id"]
    old = replace(
        newest,
        version="20250101-00000000",
        image=f"labcommons/env-{NAME}:old",
        image_id=old_image,
        created_at=newest.created_at - timedelta(days=300),
        tag=None,
    )
    bench.store.transact(lambda session: catalog.record(session, old))
    builder, keeping = bench.builder, Keeping.of(1, 30, utcnow())
    try:
        verdicts = prune(bench.store, builder.images, builder.places, keeping)
        assert {v.entry.version: str(v.why) for v in verdicts} == {
            newest.version: "among the last 1",
            old.version: "in use by alice",
        }
        assert engine.inspect_image(old_image)
    finally:
        engine.remove_container(container, force=True)
    started = Started(f"conda-image-{NAME}-python3", "image", NAME, old.version, 1)
    bench.store.transact(lambda session: add_starts(session, "alice", [started], utcnow()))
    assert all(v.keep for v in prune(bench.store, builder.images, builder.places, keeping))
    keeping = Keeping.of(1, 0, utcnow())
    [gone] = [v for v in prune(bench.store, builder.images, builder.places, keeping) if not v.keep]
    assert gone.entry.version == old.version
    with pytest.raises(ImageNotFound):
        engine.inspect_image(old_image)
    assert bench.newest() == newest
    assert engine.inspect_image(newest.image_id)


@pytest.mark.parametrize(
    ("day", "level"), [(date(2027, 5, 30), "ok"), (date(2027, 5, 1), "warn"), (None, "warn")]
)
def test_the_doctor_says_how_old_the_updates_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, day: date | None, level: str
) -> None:
    images = bench.builder.images
    monkeypatch.setattr(images, "updated", lambda image: day)
    check = doctor._updates(images, "labcommons/server", date(2027, 6, 1))
    assert check.level == level
    assert (str(day) in check.message) == (day is not None)


@pytest.mark.parametrize(
    ("version", "level"),
    [("20.10.24+dfsg1", "warn"), ("27.5.1", "warn"), ("28.5.2", "ok"), ("v-next", "ok")],
)
def test_the_doctor_recommends_an_engine_that_starts_servers_cheaper(
    version: str, level: str
) -> None:
    check = doctor._engine(version)
    assert (check.level, check.finding.params) == (level, {"version": version})
    assert ("28" in check.remedy) == (level == "warn")


NAMED = Gpus(
    source="site", request="cdi",
    devices=[GpuDeviceSpec(id="GPU-1", model="A100", memory="80G")],
)  # fmt: skip
DRIVER = Gpus(source="nvml")
BY_CDI, BY_NODES = (
    DRIVER.model_copy(update={"request": "cdi"}),
    DRIVER.model_copy(update={"request": "devices"}),
)


@pytest.mark.parametrize(
    ("gpus", "engine", "found"),
    [
        (DRIVER, {"cgroups": "systemd"}, ("warn", "doctor_gpus_losable")),
        (DRIVER, {"cgroups": "cgroupfs"}, ("ok", "doctor_gpus_kept")),
        (BY_NODES, {"cgroups": "systemd"}, ("ok", "doctor_gpus_kept")),
        (BY_CDI, {"cgroups": "systemd"}, ("fail", "doctor_no_cdi")),
        (BY_CDI, {"cdi": True}, ("ok", "doctor_gpus_kept")),
        (BY_CDI, {"cdi": True, "cdi_devices": (f"{CDI}0",)}, ("fail", "doctor_not_named")),
        (BY_CDI, {"cdi": True, "cdi_devices": (f"{CDI}GPU-1",)}, ("ok", "doctor_gpus_kept")),
        (NAMED, {"cdi": True, "cdi_devices": (f"{CDI}GPU-2",)}, ("fail", "doctor_not_named")),
        (Gpus(), {"cgroups": "systemd"}, None),
    ],
)  # fmt: skip
def test_the_doctor_finds_a_set_up_in_which_running_servers_lose_their_gpus(
    gpus: Gpus, engine: dict[str, Any], found: tuple[str, str] | None
) -> None:
    checks = list(doctor._gpus(gpus, EngineState(version="28.5.2", **engine)))
    assert [(one.level, one.finding.code) for one in checks] == ([found] if found else [])
    assert all(one.remedy for one in checks if one.level != "ok")


def test_the_doctor_finds_leases_without_an_end(store: Store) -> None:
    for spec, level in (({}, "warn"), ({"max_gpus": 1}, "warn"), ({"time_limit": 3600}, "ok")):
        store.transact(lambda s, spec=spec: s.merge(GpuQuota(subject="default", spec=spec)))
        check = store.transact(doctor._quotas, read=True)
        assert (check.level, bool(check.remedy)) == (level, level == "warn")


def test_the_doctor_says_what_is_wrong_and_what_to_do(bench: Bench) -> None:
    bench.write("python 3.11.*", "six ==", name="broken")
    places = bench.builder.places
    try:
        checks = list(
            examine(
                bench.builder.settings,
                places,
                bench.store,
                bench.builder.images,
                "labcommons/none-such:latest",
                date(2027, 6, 1),
                Gpus(),
            )
        )
    finally:
        shutil.rmtree(places.environments / "broken")
    by_level = {(check.level, check.what) for check in checks}
    assert ("fail", "broken") in by_level, "its spec cannot be read"
    assert ("warn", NAME) in by_level, "no lock is committed, and its Python ends in October"
    assert ("fail", "Docker") in by_level
    assert ("ok", "channel x") in by_level
    assert all(check.remedy for check in checks if check.level != "ok")
    engine = bench.builder.images.engine_state()
    assert engine.cgroups in ("cgroupfs", "systemd", "none"), "as the Engine itself says"
    assert engine.version[0].isdigit()

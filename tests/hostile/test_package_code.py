"""A package with code that runs whenever its Python starts: what it can reach while it is built."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import pytest

from commons.site import Environments
from commons.store import Store
from environments import offline
from environments.build import Builder, Places
from environments.spec import load_spec
from rig import agent
from rig.channel import TinyChannel
from rig.images import glibc, imported

pytestmark = [pytest.mark.docker, pytest.mark.channel]

# The channel that the tests of environments have made, or make from this.
CACHE = Path(__file__).parents[2] / ".cache" / "tests" / "environments"
NAME = "lc-tests-hostile"
# Tries what would be worth most, and writes down what it got; never fails itself.
PTH = """\
import os; exec({program!r}, {{}})
"""
PROGRAM = """
import os, socket, sys
got = [f"ran in pid {os.getpid()} as {os.getuid()}"]
def attempt(what, how):
    try:
        got.append(f"{what}: {how()}")
    except Exception:
        pass
def engine():
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(SOCKET)
        s.sendall(b"GET /version HTTP/1.0\\r\\nHost: d\\r\\n\\r\\n")
        return s.recv(65536).decode().splitlines()[-1][:80]
def environment(pid="1"):
    return open(f"/proc/{pid}/environ").read().count("CANARY-")
attempt("ENGINE", engine)
attempt("SECRETS of my parent", lambda: environment(os.getppid()))
attempt("SECRETS of the first", lambda: environment(1))
attempt("OTHER PACKAGE", lambda: open(os.path.dirname(os.__file__) + "/this.py", "a").write("#\\n"))
attempt("WITNESS", lambda: open(WITNESS, "a").write("; ".join(got) + "\\n"))
"""


def evil(channel: TinyChannel, witness: Path) -> TinyChannel:
    """A channel with a package whose `.pth` does what PROGRAM says."""
    place = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")).path
    program = f"SOCKET, WITNESS = {place!r}, {str(witness)!r}\n{PROGRAM}"
    code = PTH.format(program=program).encode()
    channel.add("evil", files={"lib/python3.11/site-packages/evil.pth": code})
    return channel.index()


@pytest.fixture
def builder(tmp_path: Path) -> Iterator[tuple[Builder, Path]]:
    """A builder with an environment of a good channel and the evil package; and its witness."""
    engine: Any = docker.from_env(timeout=120).api
    witness = tmp_path / "witness"
    channel = evil(TinyChannel(tmp_path / "evil"), witness)
    environments, data = tmp_path / "environments", tmp_path / "data"
    data.mkdir()
    (data / "cache").mkdir()
    (environments / NAME).mkdir(parents=True)
    words = ["python 3.11.*", "ipykernel", "six"]
    document: dict[str, Any] = {"name": NAME, "channels": ["x"], "dependencies": words}
    (environments / NAME / "environment.yml").write_text(json.dumps(document))
    good = CACHE / "channel"
    good.mkdir(parents=True, exist_ok=True)
    offline.update(good, CACHE / "cache", load_spec(environments / NAME), lambda _: None)
    document |= {"channels": [str(channel.folder), "x"], "dependencies": [*words, "evil"]}
    (environments / NAME / "environment.yml").write_text(json.dumps(document))
    store = Store(f"sqlite:///{tmp_path}/labcommons.sqlite")
    store.migrate()
    image = imported(engine, glibc(), tmp_path.name.lower())
    settings = Environments.model_validate({"mirrors": {"x": [str(good)]}})
    images = agent.images(image, data)
    yield Builder(settings, Places(environments, data), store, print, image, images), witness
    store.close()
    for made in engine.images(f"labcommons/env-{NAME}"):
        engine.remove_image(made["Id"], force=True)
    engine.remove_image(image, force=True)


def test_a_packages_code_does_not_run_beside_the_engines_socket(
    builder: tuple[Builder, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, witness = builder
    monkeypatch.setenv("PIP_INDEX_URL", "https://user:CANARY-@127.0.0.1:9/simple")
    entry = made.build(NAME).entry
    said = witness.read_text() if witness.exists() else ""
    assert said == "", said
    assert "evil" in {package["name"] for package in entry.packages}

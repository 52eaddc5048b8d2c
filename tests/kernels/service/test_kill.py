"""The service killed (SIGKILL) at every step of a pass: the next start finishes what it left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient
from tornado.testing import bind_unused_port

from commons.scopes import Scope
from commons.store import Store
from kernels.service.registrar import Registrar
from tests.kernels.service.conftest import PREFIX, add, body, listed, on_disk

# One pass in a process of its own, which kills itself just before its n-th change of the disk
# or transaction of the store, and says how many it made.
ONE_PASS = """
import asyncio, os, signal, sys
from pathlib import Path
from commons.store import Store
from commons.scopes import Scope
from kernels.service.registrar import Registrar

url, registry, folders, number = sys.argv[1:]
count = 0

def dying(real):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == int(number):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call

for name in ("mkdir", "open", "rename", "replace", "unlink", "rmdir", "fchmod", "write"):
    setattr(os, name, dying(getattr(os, name)))
store = Store(url)
store.engine.dialect.do_commit = dying(store.engine.dialect.do_commit)
groups = [Scope("team", "vision"), Scope("course", "ml101")]
registrar = Registrar(store, Path(registry), Path(folders), groups)
asyncio.run(registrar.refresh())
print(count, registrar.error)
"""


def one_pass(
    store: Store, registry: Path, folders: Path, number: int
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", ONE_PASS, store.url, str(registry), str(folders), str(number)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
async def test_a_pass_that_is_killed_anywhere_is_finished_by_the_next(
    store, tmp_path, roots, make_prefix, make_version
) -> None:
    registry = tmp_path / "kernels"
    add(store)
    make_version("torch", "1", "teams/vision")
    make_prefix("old", root="teams/vision/envs")
    assert one_pass(store, registry, roots, 0).stdout.split()[1] == "None"
    # What each of the killed passes has to do: change one, add one, remove one.
    make_version("torch", "2", "teams/vision")
    make_prefix("new", root="shared/envs")
    (roots / "teams/vision/envs/old").rename(tmp_path / "gone")
    saved = store.engine.url.database
    assert saved
    with sqlite3.connect(saved) as connection:
        connection.execute("VACUUM INTO ?", [f"{tmp_path}/before"])
    before = tmp_path / "kernels-before"
    registry.rename(before)
    wanted_rows = [
        ("image", "data", "1", "healthy"),
        ("shared", "new", "live", "healthy"),
        ("team-vision", "torch", "2", "healthy"),
    ]
    wanted_files = [
        "image/data/1/kernels/conda-image-data-python3",
        "shared/kernels/conda-shared-new-python3",
        "team-vision/kernels/conda-team-vision-torch-python3",
    ]
    step = 0
    while True:
        # Every third step: together with the files' own, all kinds of steps are met.
        step += 3
        subprocess.run(["cp", "-a", before, registry], check=True)
        store.engine.dispose()
        for part in ("", "-wal", "-shm"):
            Path(f"{saved}{part}").unlink(missing_ok=True)
        Path(saved).write_bytes(Path(f"{tmp_path}/before").read_bytes())
        killed = one_pass(store, registry, roots, step)
        assert killed.returncode in (0, -signal.SIGKILL), killed.stderr
        for file in registry.rglob("kernels/conda-*/kernel.json"):
            assert json.loads(file.read_text())["argv"], "half a kernelspec"
        after = Registrar(
            store, registry, roots, [Scope("team", "vision"), Scope("course", "ml101")]
        )
        await after.refresh()
        assert after.error is None
        assert listed(store) == wanted_rows
        assert on_disk(after) == wanted_files
        assert os.listdir(registry / ".staging") == []
        after.close()
        subprocess.run(["rm", "-r", registry], check=True)
        if killed.returncode == 0:
            break
    assert step > 30


async def test_the_command_serves_registers_and_survives_being_killed(
    store, tmp_path, hub, roots, make_prefix
) -> None:
    add(store)
    make_prefix("torch", root="teams/vision/envs")
    _, port = unused = bind_unused_port()
    unused[0].close()
    site = tmp_path / "site.yaml"
    site.write_text(
        "version: 1\n"
        "directory: {servers: [ldaps://x.example.org], users: {base_dn: dc=x}}\n"
        "sizes: {small: {cpu: 1, memory: 1G}}\n"
    )
    environment = {
        **os.environ,
        "LABCOMMONS_SITE_FILE": str(site),
        "LABCOMMONS_DATABASE_URL": store.url,
        "LABCOMMONS_DATA": str(tmp_path),
        "JUPYTERHUB_API_TOKEN_FILE": f"{tmp_path}/kernels-token",
        "JUPYTERHUB_API_URL": hub.api_url,
    }
    environment.pop("JUPYTERHUB_API_TOKEN", None)
    (tmp_path / "kernels-token").write_text("service-token\n")
    command = [sys.executable, "-m", "hub_ext.cli", "kernels", "--host", "127.0.0.1"]

    async def healthy(process: subprocess.Popen[str]) -> dict[str, object]:
        client = AsyncHTTPClient(force_instance=True)
        while True:
            try:
                response = await client.fetch(f"http://127.0.0.1:{port}{PREFIX}health")
                return dict(body(response))
            except Exception:  # not listening yet, or no pass yet
                assert process.poll() is None, process.communicate()
                await asyncio.sleep(0.05)

    for ending in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen(
            [*command, "--port", str(port), "--folders", str(roots)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert (await healthy(process))["registered"] == 2
        process.send_signal(ending)
        _, errors = await asyncio.to_thread(process.communicate)
        assert process.returncode == (0 if ending is signal.SIGTERM else -ending), errors
    assert len(list((tmp_path / "kernels").rglob("kernel.json"))) == 2


def test_the_command_without_a_token_says_what_to_do(tmp_path) -> None:
    site = tmp_path / "site.yaml"
    site.write_text(
        "version: 1\n"
        "directory: {servers: [ldaps://x.example.org], users: {base_dn: dc=x}}\n"
        "sizes: {small: {cpu: 1, memory: 1G}}\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "hub_ext.cli", "kernels"],
        env={
            **os.environ,
            "LABCOMMONS_SITE_FILE": str(site),
            "JUPYTERHUB_API_TOKEN": "",
            "JUPYTERHUB_API_TOKEN_FILE": f"{tmp_path}/none",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert f"{tmp_path}/none" in run.stderr
    assert "write the file or set JUPYTERHUB_API_TOKEN" in run.stderr

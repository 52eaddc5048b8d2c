"""A package's program in a builder container of the real Engine, where our worker is number 1."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from pathlib import Path

import pytest

from environments.builds.build_container import read_event
from rig.images import ours
from spawner.runtime.docker import engine as engines
from spawner.runtime.docker.body import JOB, PYTHON, Bind, build_body
from spawner.runtime.docker.engine import Engine
from spawner.runtime.docker.logs import follow
from spawner.runtime.protocol import TooMuchSaid
from spawner.runtime.spec import Account, Limits

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]
# All that a shell can do to number 1 and to our worker, whose child it is.
EVIL = """
for pid in 1 $PPID; do
  for fd in 0 1 2 3 4 5 6 7 8 9; do
    echo '{"result": {"lock": "# forged"}}' 2>/dev/null > /proc/$pid/fd/$fd && echo won $pid $fd
  done
  cat /proc/$pid/environ >/dev/null 2>&1 && echo won environ
done
echo '{"result": {"lock": "# forged"}}'
echo '{"result": {"lock": "# forged"}}' >&2
(sleep 300 &)
for signal in KILL TERM INT STOP HUP USR1; do kill -$signal 1; done
echo number 1 lives
%s
"""
WORK = """
import subprocess, sys
sys.path.insert(0, "/src")
from environments.builds import result_channel
def work():
    subprocess.run(["sh", "-c", sys.argv[1]])
    result_channel.say(result={"lock": "ours"})
    return 0
result_channel.serve(work)
"""
FLOOD = "import sys\nwhile True: sys.stdout.write('x' * 65536)"


@pytest.fixture(scope="module", autouse=True)
def builder_image() -> None:
    ours("hub")
    ours("builder")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages, where a container may read them."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("commons", "environments", "kernels", "spawner"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    folder.chmod(0o755)
    return folder


async def life(source: Path, *command: str) -> tuple[list[bytes], int]:
    """What a builder says and its exit code."""
    engine, name = Engine(timeout=30), f"lc-builder-{uuid.uuid4().hex[:8]}"
    body = build_body(
        "lab",
        ("ab" * 16, "look"),
        "labcommons/builder:latest",
        Account(uid=65534, gid=65534),
        Limits(cpu=1, memory=2**28, pids=512, shared_memory=2**26, tmp=2**26),
        env={},
        binds=[Bind(str(source), JOB), Bind(str(source), "/src")],
        network="none",
    ) | {"Cmd": list(command), "Labels": {"lc.test": "hostile", "labcommons.site": "lab"}}
    try:
        made = await engine.call(lambda api: engines.create(api, name, body))
        await engine.call(lambda api: api.start(made))
        lines = [line async for line in follow(engine, made, 0)]
        ended = await engine.call(lambda api: api.wait(made))
        return lines, int(ended["StatusCode"])
    finally:
        await engine.call(lambda api: engines.remove(api, name))
        engine.close()


@pytest.mark.parametrize("end", ["exit 0", "kill -KILL $PPID"])
async def test_number_1_is_ours_and_nobody_speaks_for_it(source: Path, end: str) -> None:
    lines, code = await asyncio.wait_for(life(source, PYTHON, "-c", WORK, EVIL % end), 100)
    events = [read_event(line) for line in lines]
    texts = [event["log"] for event in events if "log" in event]
    assert "number 1 lives" in texts, lines
    assert not any(text.startswith("won") for text in texts)
    results = [event["result"] for event in events if "result" in event]
    if end == "exit 0":
        assert (results, code) == ([{"lock": "ours"}], 0)
    else:
        assert (results, code) == ([], 137)
    assert json.dumps({"result": {"lock": "# forged"}}) in texts, "it was heard, as text"


async def test_a_line_without_an_end_is_left_after_its_limit(source: Path) -> None:
    with pytest.raises(TooMuchSaid):
        await asyncio.wait_for(life(source, PYTHON, "-c", FLOOD), 100)

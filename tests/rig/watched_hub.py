"""The site's own hub with a watch over its event loop; around it, ``rig.hub_world``.

``python watched_hub.py``: settings by the variables of ``hub_world``, HUB_PORT and HUB_TOKEN. What
was seen since the last question is at ``/hub/watched``: each callback that held the loop for more
than SLOW seconds (on the wall, and in CPU of the loop's thread), and where the thread was at
moments in which the loop had been silent for SILENT seconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
import time
import tracemalloc
from asyncio import events
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from jupyterhub.auth import DummyAuthenticator
from jupyterhub.handlers.base import BaseHandler

SLOW = 0.015  # seconds of one callback from which on it is told
SILENT = float(os.environ.get("WATCH_SILENT", "0.02"))  # seconds until the thread is looked at
EVERY = 0.004  # seconds between two looks at a silent one
# "0": nothing is watched, "1": what is slow, "spent": what takes CPU.
WATCHED = os.environ.get("WATCH_LOOP", "1")
DEEP = 60  # frames of a stack
# Folders before which a file's name is cut.
PLACES = ("/site-packages/", "/lib/python3", str(Path(__file__).parents[2]))


class LoopWatch:
    """What holds the loop of the thread that makes this."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self._began = 0.0  # of the round that goes on; 0: none
        self.slow: list[tuple[float, float, str]] = []
        self.stacks: Counter[str] = Counter()
        self.longest = self.longest_cpu = 0.0
        # Of the round of the loop that goes on, and of the longest ones: what ran in it.
        self._round: list[tuple[float, float, str]] = []
        self.rounds: list[tuple[float, float, Counter[str]]] = []
        self.spent: Counter[str] = Counter()  # seconds of CPU, by what ran
        self.often: Counter[str] = Counter()
        self.garbage = 0.0  # seconds of CPU of the longest search for garbage
        self._time_callbacks()
        gc.callbacks.append(self._time_garbage)
        if WATCHED == "1":
            self._time_rounds()
            threading.Thread(target=self._look, daemon=True).start()

    def _time_callbacks(self) -> None:
        run = events.Handle._run

        def timed(handle: events.Handle) -> None:
            if threading.get_ident() != self._thread:
                return run(handle)
            began = time.perf_counter()
            cpu = time.thread_time()
            try:
                run(handle)
            finally:
                took = time.perf_counter() - began
                cpu = time.thread_time() - cpu
                self.longest = max(self.longest, took)
                self.longest_cpu = max(self.longest_cpu, cpu)
                if WATCHED == "1":
                    self._round.append((took, cpu, handle))
                    if took > SLOW:
                        self.slow.append((took, cpu, _name(handle)))
                else:
                    self.spent[name := _name(handle)] += cpu
                    self.often[name] += 1

        events.Handle._run = timed  # type: ignore[method-assign]

    def _time_garbage(self, phase: str, _: object) -> None:
        if phase == "start":
            self._searched = time.thread_time()
        else:
            self.garbage = max(self.garbage, time.thread_time() - self._searched)

    def _time_rounds(self) -> None:
        selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        select = selector.select

        def waiting(timeout: float | None = None) -> Any:
            done, self._round = self._round, []
            took, cpu = sum(one[0] for one in done), sum(one[1] for one in done)
            if took > 2 * SLOW:
                names: Counter[str] = Counter()
                for one, _, handle in done:
                    names[_name(handle)] += one
                self.rounds.append((took, cpu, len(done), names.most_common(8)))
            self._began = 0.0
            found = select(timeout)
            self._began = time.perf_counter()
            return found

        selector.select = waiting

    def _look(self) -> None:
        while True:
            time.sleep(EVERY)
            began = self._began
            if began and time.perf_counter() - began > SILENT:
                frame = sys._current_frames().get(self._thread)
                self.stacks["\n".join(_frames(frame))] += 1

    def taken(self) -> dict[str, Any]:
        """What was seen; then it is forgotten."""
        found = {
            "longest": self.longest,
            "longest_cpu": self.longest_cpu,
            "garbage": self.garbage,
            "spent": [(cpu, self.often[name], name) for name, cpu in self.spent.most_common(60)],
            "rounds": sorted(self.rounds, reverse=True)[:100],
            "slow": sorted(self.slow, reverse=True)[:200],
            "stacks": self.stacks.most_common(600),
        }
        self.slow, self.stacks, self.rounds = [], Counter(), []
        self.spent, self.often = Counter(), Counter()
        self.longest = self.longest_cpu = self.garbage = 0.0
        return found


def _name(handle: events.Handle) -> str:
    callback: Any = handle._callback
    task = getattr(callback, "__self__", None)
    if isinstance(task, asyncio.Task):
        coroutine: Any = task.get_coro()
        return str(getattr(coroutine, "__qualname__", coroutine))
    return str(getattr(callback, "__qualname__", callback))


def _frames(frame: FrameType | None) -> list[str]:
    found: list[str] = []
    while frame is not None and len(found) < DEEP:
        file = frame.f_code.co_filename
        for place in PLACES:
            file = file.split(place)[-1]
        found.append(f"{file}:{frame.f_lineno} {frame.f_code.co_qualname}")
        frame = frame.f_back
    return found


class Watched(BaseHandler):  # type: ignore[misc]
    """``GET /hub/watched``: what was seen, CPU seconds and memory of the process until now."""

    async def get(self) -> None:
        if self.get_argument("collect", ""):
            gc.collect()
        used = time.process_time()
        rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
        private = sum(
            int(line.split()[1])
            for line in rollup
            if line.startswith(("Private_Clean", "Private_Dirty"))
        )
        found = WATCH[0].taken() if WATCH else {}
        found |= {"cpu": used, "MB": private / 1024, "files": len(os.listdir("/proc/self/fd"))}
        if self.get_argument("objects", ""):
            found["objects"] = Counter(
                f"{type(one).__module__}.{type(one).__qualname__}" for one in gc.get_objects()
            ).most_common(400)
        if tracemalloc.is_tracing():
            found["traced"] = [
                (stat.size, stat.count, "\n".join(map(str, stat.traceback.format()[-16:])))
                for stat in tracemalloc.take_snapshot().statistics("traceback")[:60]
            ]
        self.finish(json.dumps(found))


WATCH: list[LoopWatch] = []


class Everybody(DummyAuthenticator):  # type: ignore[misc]
    """Whoever says a name; what the directory would say of them is kept with it."""

    def get_handlers(self, app: Any) -> list[tuple[str, Any]]:
        """As ours does."""
        gc.collect()
        gc.freeze()
        return list(super().get_handlers(app))

    async def refresh_user(self, user: Any, handler: Any = None, **_more: Any) -> Any:
        return {"name": user.name, "auth_state": state_of(user.name)}


def state_of(name: str) -> dict[str, Any]:
    number = 20000 + int(name[1:] or 0)
    return {"uid": number, "gid": number, "gids": [], "display_name": name, "mail": ""}


def configure(c: Any) -> None:
    """Over the site's own configuration."""
    url = f"http://127.0.0.1:{os.environ['HUB_PORT']}"
    c.JupyterHub.hub_bind_url = c.JupyterHub.hub_connect_url = url
    c.JupyterHub.authenticator_class = Everybody
    c.Authenticator.allow_all = True
    c.Authenticator.enable_auth_state = True
    c.Authenticator.refresh_pre_spawn = True
    c.Spawner.port = int(os.environ["SERVERS_PORT"])
    c.JupyterHub.extra_handlers = [("/watched", Watched)]
    c.JupyterHub.services.append({"name": "test", "api_token": os.environ["HUB_TOKEN"]})
    c.JupyterHub.load_roles.append(
        {"name": "test", "services": ["test"], "scopes": ["admin:users", "admin:servers", "tokens"]}
    )


def main() -> None:
    if frames := int(os.environ.get("WATCH_MEMORY", "0")):
        tracemalloc.start(frames)
    # As the command `labcommons hub` has it.
    gc.disable()
    from hub_ext.app import LabCommonsHub

    gc.freeze()
    gc.enable()

    class Hub(LabCommonsHub):
        """With the watch."""

        async def initialize(self, *args: Any, **kwargs: Any) -> None:
            await super().initialize(*args, **kwargs)
            if WATCHED != "0":
                WATCH.append(LoopWatch())

    Hub.launch_instance(["--config", str(Path(__file__).parent / "watched_hub_config.py")])


if __name__ == "__main__":
    # The configuration imports this module by its own name.
    sys.modules["rig.watched_hub"] = sys.modules["__main__"]
    main()

"""A real Jupyter server with our kernel list, spoken to as a browser speaks to it."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from commons.site import Kernels
from kernels.list_watcher import SCHEMA_ID
from rig import r
from tests.kernels.conftest import MakePrefix, write_kernel, write_program

TREE = Path(__file__).resolve().parents[2]
NAME = "conda-image-lab-env-python3"
SETTINGS = Kernels(
    nice=3,
    limits={"nofile": 300, "fsize": "1G"},
    hidden=["conda-*-base-*"],
    renamed={"conda-personal-my-*": "{environment}|{source}|{label}|{python}|{version}|{kernel}"},
)
CONFIG = """
load_subconfig("{tree}/config/images/server/etc/jupyter_server_config.py")
c.ServerApp.jpserver_extensions = {{"kernels.list_watcher": True}}
c.KernelManager.transport = "ipc"
c.CondaKernelSpecManager.mirror = "{roots}/mirror"
c.CondaKernelSpecManager.sources = [
    {{"id": "image", "pattern": "{roots}/image/*", "label": ""}},
    {{"id": "personal", "pattern": "{roots}/envs/*", "label": "personal"}},
]
"""


@dataclass
class Server:
    port: int
    roots: Path
    config: Path

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        request = HTTPRequest(
            f"http://127.0.0.1:{self.port}/{path}",
            method=method,
            headers={"Authorization": "token secret"},
            body=None if body is None else json.dumps(body),
            allow_nonstandard_methods=True,
            request_timeout=60,
        )
        answer = await AsyncHTTPClient().fetch(request)
        return json.loads(answer.body) if answer.body else None

    async def specs(self) -> dict[str, Any]:
        return (await self.ask("GET", "api/kernelspecs"))["kernelspecs"]

    async def connect(self, path: str) -> WebSocketClientConnection:
        return await websocket_connect(f"ws://127.0.0.1:{self.port}/{path}?token=secret")


@pytest.fixture
async def server(live_prefix: Path, roots: Path, tmp_path: Path) -> AsyncIterator[Server]:
    (roots / "image").mkdir()
    (roots / "envs").mkdir()
    (roots / "image/lab-env").symlink_to(live_prefix)
    (tmp_path / "jupyter_server_config.py").write_text(
        "c = get_config()\n" + CONFIG.format(roots=roots, tree=TREE)
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environ = {
        **os.environ,
        "HOME": str(tmp_path),
        "PYTHONPATH": str(TREE),
        "JUPYTER_CONFIG_PATH": str(tmp_path),
        # Short, as the paths of sockets have to be.
        "JUPYTER_RUNTIME_DIR": f"/tmp/labcommons-{uuid.uuid4().hex[:8]}",
        "LABCOMMONS_ENVIRONMENT": "lab-env:1",
        "LABCOMMONS_KERNEL_SETTINGS": json.dumps(SETTINGS.settings),
    }
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyter_server", "--allow-root", f"--port={port}",
             "--no-browser", "--IdentityProvider.token=secret", "--ip=127.0.0.1"],
            env=environ, cwd=tmp_path, stdout=log, stderr=log,
        )  # fmt: skip
    running = Server(port, roots, tmp_path)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                await running.ask("GET", "api/status")
                break
            except (OSError, HTTPClientError):
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                await asyncio.sleep(0.1)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(environ["JUPYTER_RUNTIME_DIR"], ignore_errors=True)


class Notebook:
    """A kernel over its websocket."""

    def __init__(self, server: Server, kernel: str, socket: WebSocketClientConnection) -> None:
        self.server, self.kernel, self._socket = server, kernel, socket
        # One reader for all that ask: one that is cancelled may not take another's answers.
        self._asked: dict[str, asyncio.Queue[dict[str, Any] | None]] = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        while (raw := await self._socket.read_message()) is not None:
            answer = json.loads(raw)
            if queue := self._asked.get(answer["parent_header"].get("msg_id")):
                queue.put_nowait(answer)
        for queue in self._asked.values():
            queue.put_nowait(None)

    async def busy(self) -> None:
        """Wait until it works."""
        while (await self.server.ask("GET", f"api/kernels/{self.kernel}"))[
            "execution_state"
        ] != "busy":
            await asyncio.sleep(0.02)

    async def restart(self) -> None:
        """Restart it; what is printed before the server listens to it again would be lost."""
        await self.server.ask("POST", f"api/kernels/{self.kernel}/restart", {})
        await self.answers()

    async def answers(self) -> None:
        """Wait until it does."""
        for _ in range(20):
            try:
                async with asyncio.timeout(3):
                    await self.ask("kernel_info_request", {})
                return
            except TimeoutError:
                continue
        raise AssertionError("the kernel has not answered for a minute")

    async def ask(
        self, kind: str, content: dict[str, Any], channel: str = "shell"
    ) -> tuple[dict[str, Any], str]:
        """The content of the reply, and all that was printed until the kernel is idle."""
        header = {
            "msg_id": uuid.uuid4().hex, "msg_type": kind, "session": "s", "username": "",
            "date": "2026-01-01T00:00:00Z", "version": "5.4",
        }  # fmt: skip
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        answers = self._asked[header["msg_id"]] = asyncio.Queue()
        await self._socket.write_message(json.dumps({**message, "channel": channel, "buffers": []}))
        reply: dict[str, Any] | None = None
        idle, printed = False, ""
        while reply is None or not idle:
            async with asyncio.timeout(60):
                answer = await answers.get()
            assert answer is not None, "the server closed the connection"
            said = answer["content"]
            if answer["channel"] == channel:
                reply = said
            elif answer["msg_type"] == "stream":
                printed += said["text"]
            idle = idle or said.get("execution_state") == "idle"
        return reply, printed

    async def run(self, code: str) -> str:
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        reply, printed = await self.ask("execute_request", content)
        assert reply["status"] == "ok", reply
        return printed


@asynccontextmanager
async def notebook(server: Server, name: str) -> AsyncIterator[Notebook]:
    asked = {
        "path": f"{uuid.uuid4()}.ipynb",
        "type": "notebook",
        "name": "",
        "kernel": {"name": name},
    }
    session = await server.ask("POST", "api/sessions", asked)
    kernel = session["kernel"]["id"]
    connection = await server.connect(f"api/kernels/{kernel}/channels")
    opened = Notebook(server, kernel, connection)
    await opened.ask("kernel_info_request", {})
    yield opened
    connection.close()
    await server.ask("DELETE", f"api/sessions/{session['id']}")


async def test_the_list_over_rest_has_names_logos_and_the_chosen_default(server: Server) -> None:
    answer = await server.ask("GET", "api/kernelspecs")
    assert answer["default"] == NAME
    assert list(answer["kernelspecs"]) == [NAME]
    spec = await server.ask("GET", f"api/kernelspecs/{NAME}")
    assert spec["spec"]["display_name"].startswith("lab-env - Python 3.")
    assert spec["spec"]["metadata"]["debugger"] is True


async def test_a_new_environment_is_listed_at_once_and_told_to_open_pages(
    server: Server, make_prefix: MakePrefix
) -> None:
    events = await server.connect("api/events/subscribe")
    await server.specs()  # as a page does when it opens
    prefix = make_prefix("mine")
    write_kernel(prefix)
    name = "conda-personal-mine-python3"
    assert name in await server.specs()
    told = json.loads(str(await asyncio.wait_for(events.read_message(), 10)))
    assert (told["schema_id"], told["added"]) == (SCHEMA_ID, [name])
    shutil.rmtree(prefix)
    assert name not in await server.specs()
    told = json.loads(str(await asyncio.wait_for(events.read_message(), 10)))
    assert (told["added"], told["removed"]) == ([], [name])
    events.close()


async def test_a_session_runs_is_interrupted_and_restarted(server: Server) -> None:
    async with notebook(server, NAME) as opened:
        assert await opened.run("kept = 1; print(kept)") == "1\n"
        loop = asyncio.create_task(opened.ask("execute_request", {"code": "while True: pass"}))
        await opened.busy()
        await server.ask("POST", f"api/kernels/{opened.kernel}/interrupt", {})
        assert (await loop)[0]["ename"] == "KeyboardInterrupt"
        await opened.restart()
        assert await opened.run("print('kept' in globals())") == "False\n"


async def test_a_kernel_that_its_own_cells_end_starts_again_however_often(server: Server) -> None:
    """Kind: a cell that ends its kernel, run again at once: its environment is not at fault."""
    async with notebook(server, NAME) as opened:
        for end in ("os._exit(3)", "os.kill(os.getpid(), 11)", "os.kill(os.getpid(), 9)"):
            number = (await opened.run("import os; print(os.getpid())")).strip()
            ended = asyncio.create_task(opened.ask("execute_request", {"code": end}))
            while Path("/proc", number).exists():
                await asyncio.sleep(0.05)
            ended.cancel()
            await opened.answers()
        assert await opened.run("print(6 * 7)") == "42\n"


async def test_a_notebook_with_half_a_kernelspec_is_opened_and_exported(server: Server) -> None:
    """Kind: metadata that scripts wrote."""
    for spec in ({}, {"name": "python3"}):
        notebook = {
            "cells": [],
            "metadata": {"kernelspec": spec},
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (server.config / "half.ipynb").write_text(json.dumps(notebook))
        opened = await server.ask("GET", "api/contents/half.ipynb")
        assert not opened.get("message")
        assert opened["content"]["metadata"].get("kernelspec", {}).get("name") == spec.get("name")
        url = f"http://127.0.0.1:{server.port}/nbconvert/markdown/half.ipynb?token=secret"
        assert (await AsyncHTTPClient().fetch(url, request_timeout=60)).code == 200


async def test_the_debugger_stops_at_a_breakpoints_source(server: Server) -> None:
    """The debugger's own connection is the kernel's, whatever the transport."""
    async with notebook(server, NAME) as opened:
        begin = {"clientID": "t", "adapterID": "", "pathFormat": "path", "linesStartAt1": True}
        number = 0

        async def debug(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
            nonlocal number
            number += 1
            request = {"type": "request", "seq": number, "command": command, "arguments": arguments}
            reply, _ = await opened.ask("debug_request", request, "control")
            assert reply["success"], reply
            return reply.get("body", {})

        assert (await debug("initialize", begin))["supportsExceptionInfoRequest"]
        source = (await debug("dumpCell", {"code": "a = 1\nb = 2"}))["sourcePath"]
        await debug("attach", {})
        points = {"source": {"path": source}, "breakpoints": [{"line": 2}]}
        assert (await debug("setBreakpoints", points))["breakpoints"][0]["verified"]


async def test_kernels_are_hidden_and_renamed_by_the_site_file(
    server: Server, make_prefix: MakePrefix
) -> None:
    make_prefix("base")
    make_prefix("my")
    specs = await server.specs()
    shown = {name: each["spec"]["display_name"] for name, each in specs.items() if name != NAME}
    assert shown == {"conda-personal-my-python3": "my|personal|personal|3.13||python3"}


async def test_kernels_keep_to_the_limits_of_the_site_file(server: Server) -> None:
    asked = "import os, resource as r; print(*r.getrlimit(r.RLIMIT_{}), os.nice(0))"
    async with notebook(server, NAME) as opened:
        for _ in range(2):
            assert await opened.run(asked.format("NOFILE")) == f"300 300 {os.nice(0) + 3}\n"
            assert (await opened.run(asked.format("FSIZE"))).startswith(f"{2**30} {2**30} ")
            await opened.restart()


async def test_pip_in_a_cell_aims_at_the_kernels_own_environment(server: Server) -> None:
    async with notebook(server, NAME) as opened:
        said = await opened.run("%pip --version")
        where = await opened.run("import sys; print(sys.executable)")
        real = os.path.realpath(server.roots / "image/lab-env")
        assert where.strip() == f"{real}/bin/python"
        assert "pip " in said  # run by sys.executable: "%pip" is "sys.executable -m pip"


async def test_bash_starts_by_its_own_kernelspec(
    server: Server, make_prefix: MakePrefix, live_prefix: Path
) -> None:
    shell = make_prefix("tools", kernel=None)
    (shell / "bin/python").write_text(f'#!/bin/sh\nexec {live_prefix}/bin/python "$@"\n')
    argv = ["python", "-m", "bash_kernel", "-f", "{connection_file}"]
    write_kernel(shell, {"argv": argv, "display_name": "Bash", "language": "bash"}, "bash")
    async with notebook(server, "conda-personal-tools-bash") as opened:
        assert await opened.run("echo $CONDA_DEFAULT_ENV") == "tools\n"


@pytest.fixture(scope="session")
def r_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("r") / "envs/stats"
    try:
        r.make(prefix)
    except r.NoR as error:
        pytest.skip(str(error))
    return prefix


async def test_r_runs_and_is_interrupted(server: Server, r_prefix: Path) -> None:
    (server.roots / "envs/stats").symlink_to(r_prefix)
    name = "conda-personal-stats-ir"
    assert (await server.specs())[name]["spec"]["display_name"] == "stats (personal) - R"
    async with notebook(server, name) as opened:
        assert await opened.run("cat(1 + 1, R.home())") == f"2 {r_prefix}/lib/R"
        assert await opened.run("cat(Sys.getenv('CONDA_DEFAULT_ENV'))") == "stats"
        asked = {"code": "while (TRUE) {}", "silent": False, "store_history": True}
        loop = asyncio.create_task(opened.ask("execute_request", asked | {"allow_stdin": False}))
        await opened.busy()
        await server.ask("POST", f"api/kernels/{opened.kernel}/interrupt", {})
        assert (await loop)[0]["status"] == "abort"  # as IRkernel calls it
        await opened.restart()
        assert await opened.run("cat(6 * 7)") == "42"


def test_rs_own_way_to_install_is_answered_where_it_could_not_write(
    r_prefix: Path, tmp_path: Path
) -> None:
    """Kind: install.packages in others' environment; by whatever calls it, and not in one's own."""
    program = write_program(tmp_path / "server", "python")
    program.write_text('#!/bin/sh\nshift 3; echo asked: "$@"\nexit 1\n')
    code = "install.packages('ggplot2'); utils::install.packages(c('x', 'y'), quiet = TRUE)"
    ours = f"R_PROFILE={TREE}/config/images/server/lib/profile.R LABCOMMONS_PARTS={tmp_path}"
    read_only = f"mount --bind {r_prefix} {r_prefix} && mount -o remount,ro,bind {r_prefix}"
    script = f'{read_only} && {ours} {r_prefix}/bin/R --slave -e "{code}"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines() == [
        f"asked: r {r_prefix} ggplot2", f"asked: r {r_prefix} x y"
    ], done  # fmt: skip
    own = f"{ours} {r_prefix}/bin/R --slave -e \"install.packages('x', repos = 'file:///no')\""
    done = subprocess.run(["sh", "-c", own], capture_output=True, text=True, check=False)
    assert "asked" not in done.stderr
    assert "/no/src/contrib" in done.stderr  # R's own words


async def test_a_kernel_that_may_know_no_sockets_in_files_gets_tcp(
    server: Server, make_prefix: MakePrefix, live_prefix: Path
) -> None:
    prefix = make_prefix("rust", kernel=None)
    argv = ["evcxr_jupyter", "--control_file", "{connection_file}"]
    write_kernel(prefix, {"argv": argv, "display_name": "Rust", "language": "Rust"}, "rust")
    write_program(prefix, "evcxr_jupyter").write_text(
        f'#!/bin/sh\nexec {live_prefix}/bin/python -m ipykernel_launcher -f "$2"\n'
    )
    code = "import ipykernel.connect as c, json; print(json.loads(c.get_connection_info())[{!r}])"
    async with notebook(server, "conda-personal-rust-rust") as opened:
        assert await opened.run(code.format("transport")) == "tcp\n"
        await opened.restart()
        assert await opened.run(code.format("ip")) == "127.0.0.1\n"
    async with notebook(server, NAME) as opened:
        assert await opened.run(code.format("transport")) == "ipc\n"


async def test_other_programs_find_the_same_names(server: Server, live_prefix: Path) -> None:
    """nbconvert, papermill and console take their list from JUPYTER_PATH alone.

    Those of a person's own environment know no provisioner of ours, so none is named.
    """
    await server.specs()
    foreign = server.roots / "mirror/kernels/conda-theirs/kernel.json"
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_text('{"argv": ["/bin/true"], "display_name": "theirs", "language": "x"}')
    mine = server.roots / "envs/mine"
    shutil.copytree(live_prefix, mine, symlinks=True)
    (mine / "etc/conda/activate.d").mkdir(parents=True)
    (mine / "etc/conda/activate.d/a.sh").write_text("export ACTIVATED=$CONDA_DEFAULT_ENV")
    name = "conda-personal-mine-python3"
    written = server.roots / f"mirror/kernels/{name}/kernel.json"
    await until(written.exists)
    assert "kernel_provisioner" not in json.loads(written.read_text())["metadata"]
    environ = {
        **os.environ,
        "JUPYTER_PATH": f"{server.roots}/mirror",
        "CONDA_PREFIX": "/o",  # papermill's own environment
        "PATH": f"/o/bin:{os.environ['PATH']}",
        "LABCOMMONS_KERNEL_SETTINGS": json.dumps(SETTINGS.settings),
    }

    def run(*command: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", *command], env=environ, cwd=server.roots, check=True,
            capture_output=True, text=True, timeout=120,
        ).stdout  # fmt: skip

    assert name in run("jupyter", "kernelspec", "list")
    said = "os.environ['ACTIVATED'], os.nice(0), '/o/bin' in os.environ['PATH']"
    code = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None,
            "source": f"import os; print({said})"}  # fmt: skip
    kernel = {"kernelspec": {"name": name, "display_name": "mine", "language": "python"}}
    notebook = {"cells": [code], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (server.roots / "n.ipynb").write_text(json.dumps(notebook))
    said = await asyncio.to_thread(
        run, "nbconvert", "--execute", "--to", "markdown", "--stdout", "n.ipynb"
    )
    assert f"    mine {os.nice(0) + 3} False\n" in said
    (mine / "bin/python").unlink()
    with pytest.raises(subprocess.CalledProcessError) as failed:
        await asyncio.to_thread(run, "nbconvert", "--execute", "--to", "markdown", "n.ipynb")
    assert f"The kernel of {mine} cannot start" in failed.value.stderr
    shutil.rmtree(mine)
    await until(lambda: not written.exists())
    assert foreign.exists()


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_a_missing_kernel_is_answered_with_the_nearest(server: Server) -> None:
    path = "labcommons/kernels/nearest?name=conda-team-x-lab-python3&packages=os,ipykernel"
    answer = await server.ask("GET", path)
    assert answer["missing"]
    assert answer["nearest"]["name"] == NAME
    assert not (await server.ask("GET", f"labcommons/kernels/nearest?name={NAME}"))["missing"]
    odd = await server.ask("GET", "labcommons/kernels/nearest?name=..%2F%00%F0%9F%98%80&language=x")
    assert odd == {"missing": True, "taken": None, "nearest": None}
    for query in ("", "?name=python3&language=python", "?name=.venv"):
        answer = await server.ask("GET", f"labcommons/kernels/nearest{query}")
        assert answer["taken"]["name"] == NAME, answer
        assert answer["nearest"] is None
    by_hash = f"{NAME}-{hashed(server)}"
    answer = await server.ask("GET", f"labcommons/kernels/nearest?name={by_hash}")
    assert answer["taken"] == {
        "name": NAME, "display_name": answer["taken"]["display_name"], "exactly": True,
    }  # fmt: skip


def hashed(server: Server) -> str:
    """What an earlier name of the kernel ended in."""
    path = f"{server.roots}/image/lab-env\0python3"
    return hashlib.sha256(path.encode()).hexdigest()[:8]


async def test_rest_starts_the_kernel_that_a_name_of_elsewhere_means(server: Server) -> None:
    """Kind: kernels by REST. The kernel is called by its own name from then on."""
    for name in ("python3", "conda-env-foo-py", ".venv", f"{NAME}-{hashed(server)}", NAME.upper()):
        kernel = await server.ask("POST", "api/kernels", {"name": name})
        assert kernel["name"] == NAME, name
        await server.ask("DELETE", f"api/kernels/{kernel['id']}")
    body = {"path": "a.ipynb", "name": "a", "type": "notebook", "kernel": {"name": "python2"}}
    session = await server.ask("POST", "api/sessions", body)
    assert session["kernel"]["name"] == NAME
    path = f"api/sessions/{session['id']}"
    with pytest.raises(HTTPClientError) as refused:
        await server.ask("PATCH", path, {"kernel": {"name": "foo"}})
    assert refused.value.code == 404
    again = body | {"kernel": {"name": "foo"}}  # the session is there already
    assert (await server.ask("POST", "api/sessions", again))["id"] == session["id"]
    changed = await server.ask("PATCH", path, {"kernel": {"name": "python3"}})
    assert changed["kernel"]["name"] == NAME
    await server.ask("DELETE", path)


@pytest.mark.parametrize("name", ["foo", "ir", "conda-image-gone-python3", "环境", "a/../b"])
async def test_rest_refuses_an_unknown_name_with_the_sentence(server: Server, name) -> None:
    """Kind: errors of REST. No 500 and no 501: 404, with what to do."""
    session = {"path": "b.ipynb", "name": "b", "type": "notebook", "kernel": {"name": name}}
    for path, body in (("api/kernels", {"name": name}), ("api/sessions", session)):
        with pytest.raises(HTTPClientError) as refused:
            await server.ask("POST", path, body)
        assert refused.value.code == 404
        said = json.loads(refused.value.response.body)["message"]
        assert name in said
        assert "The nearest is" in said or "nor any other" in said
    for wrong in (7, ["x"], "x" * 300):
        with pytest.raises(HTTPClientError) as refused:
            await server.ask("POST", "api/kernels", {"name": wrong})
        assert refused.value.code == 400


@pytest.mark.parametrize("language", ["en", "zh_CN"])
async def test_programs_end_with_one_sentence_or_run_what_is_meant(
    server: Server, live_prefix: Path, language: str
) -> None:
    """Kind: Jupyter's programs in a terminal; also where the locale is one that is not there."""
    await server.specs()
    await until((server.roots / "mirror/kernels/python3/kernel.json").exists)
    environ = {
        **os.environ,
        "HOME": str(server.roots),
        "PYTHONPATH": str(TREE),
        "JUPYTER_PATH": f"{server.roots}/mirror",
        "JUPYTER_CONFIG_PATH": str(server.config),
        "LANG": f"{language}.UTF-8",
        "LC_ALL": f"{language}.UTF-8",
        "LABCOMMONS_LANGUAGE": language,
        "LABCOMMONS_ENVIRONMENT": "lab-env:1",
        "LABCOMMONS_KERNEL_SETTINGS": json.dumps(SETTINGS.settings),
    }

    async def run(kernelspec: object, *words: str) -> subprocess.CompletedProcess[str]:
        code = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [],
                "execution_count": None, "source": "import sys; print(sys.prefix)"}  # fmt: skip
        metadata = {} if kernelspec is None else {"kernelspec": kernelspec}
        notebook = {"cells": [code], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
        (server.roots / "n.ipynb").write_text(json.dumps(notebook))
        return await asyncio.to_thread(
            subprocess.run, [sys.executable, "-m", "kernels.programs", *words, "n.ipynb"],
            env=environ, cwd=server.roots, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    convert = ("nbconvert", "--execute", "--to", "markdown", "--stdout")
    real = os.path.realpath(server.roots / "image/lab-env")
    names = (None, "python3", "conda-env-foo-py", "python3.9")
    for name in names if language == "en" else names[:1]:  # which one it is hangs on no language
        spec = name and {"name": name, "display_name": name, "language": "python"}
        done = await run(spec, *convert)
        assert done.returncode == 0, done.stderr
        assert real in done.stdout
    unknown = {"name": "foo", "display_name": "foo", "language": "python"}
    sentence = {"en": "There is no kernel “foo” here. The nearest is", "zh_CN": "此处没有内核“foo”"}
    for words in (convert, ("execute",)):
        done = await run(unknown, *words)
        assert done.returncode == 1
        assert sentence[language] in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 3, done.stderr
    scripts = "jupyter execute n.ipynb"
    done = await run(unknown, "run")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert scripts in done.stderr
    for words in (("nbconvert", "--to", "pdf"), ("run", "nowhere.py")):
        done = await run(unknown, *words)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr

    # Those of a person's own environment, which has nothing of ours but what stands before it.
    parts = server.roots / "parts/server/bin"
    parts.mkdir(parents=True)
    ours = f'#!/bin/sh\nshift; PYTHONPATH={TREE} exec {sys.executable} "$@"\n'
    (parts / "python").write_text(ours)
    (parts / "python").chmod(0o755)
    environ["LABCOMMONS_PARTS"] = str(server.roots / "parts")
    environ["PYTHONPATH"] = str(TREE / "config/images/server/inside")

    async def own(*words: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(
            subprocess.run, words, env=environ, cwd=server.roots, capture_output=True, text=True,
            timeout=120,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    programs = Path(sys.executable).parent
    for program in ("jupyter-execute", "jupyter-run"):
        code, _, told = await own(str(programs / program), "n.ipynb")
        wanted = sentence[language] if program == "jupyter-execute" else scripts
        assert (code, wanted in told, "Traceback" in told) == (1, True, False), told
    ask = "from jupyter_client.kernelspec import KernelSpecManager as M; import sys; "
    ask += "print(M().get_kernel_spec(sys.argv[1]).metadata['labcommons']['prefix'])"
    code, said, told = await own(sys.executable, "-c", ask, "Python3.9-of-elsewhere")
    assert (code, "NoSuchKernel: " in told.splitlines()[-1]) == (1, True), told
    assert "Python3.9-of-elsewhere" in told.splitlines()[-1]
    code, said, told = await own(sys.executable, "-c", ask, "conda-env-foo-py")
    assert (code, os.path.realpath(said.strip())) == (0, real), told


async def test_an_environment_rebuilt_while_its_kernel_runs_is_used_by_the_restart(
    server: Server, live_prefix: Path
) -> None:
    mine = server.roots / "envs/mine"
    shutil.copytree(live_prefix, mine, symlinks=True)
    async with notebook(server, "conda-personal-mine-python3") as opened:
        shutil.rmtree(mine)
        assert await opened.run("print(1)") == "1\n"  # what runs goes on
        shutil.copytree(live_prefix, mine, symlinks=True)
        (mine / "conda-meta/state").write_text('{"env_vars": {"REBUILT": "yes"}}')
        await opened.restart()
        assert await opened.run("import os; print(os.environ['REBUILT'])") == "yes\n"


async def test_five_thousand_environments_do_not_stop_the_server(
    server: Server, make_prefix: MakePrefix
) -> None:
    template = make_prefix("e0")
    for index in range(1, 5000):
        (server.roots / f"envs/e{index}").symlink_to(template)
    listing, begun = asyncio.create_task(server.specs()), time.monotonic()
    answered = 0
    while not listing.done():
        await server.ask("GET", "api/status")
        answered += 1
    # It answered others meanwhile, or there was hardly a while.
    assert answered > 1 or time.monotonic() - begun < 1
    deadline = time.monotonic() + 30
    while len(await server.specs()) != 5001:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)

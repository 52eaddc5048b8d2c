"""The kernel list of a user's server, and kernels that really run."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nbformat
import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_client.manager import AsyncKernelManager

from kernels import error_kernel
from kernels.kernelspec import Place, check_document, plain_spec
from kernels.manager import CondaKernelSpecManager
from kernels.provisioner import CondaProvisioner, KernelCannotStart
from tests.kernels.conftest import IPYKERNEL, age, write_kernel, write_notes

NAME = "conda-image-lab-env-python3"


@pytest.fixture
def manager(roots: Path):
    return manager_of(f"{roots}/envs/*")


def manager_of(pattern: str, *kernel_dirs: Path) -> CondaKernelSpecManager:
    source = {"id": "image", "pattern": pattern, "label": ""}
    return CondaKernelSpecManager(sources=[source], kernel_dirs=[str(path) for path in kernel_dirs])


def copy_of(live_prefix: Path, roots: Path) -> Path:
    """A live environment that a test may break."""
    prefix = roots / "envs" / live_prefix.name
    shutil.copytree(live_prefix, prefix, symlinks=True)
    return prefix


@asynccontextmanager
async def attached(kernel: AsyncKernelManager) -> AsyncIterator[AsyncKernelClient]:
    client = kernel.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        await kernel.shutdown_kernel(now=True)


@asynccontextmanager
async def started(kernel: AsyncKernelManager) -> AsyncIterator[AsyncKernelClient]:
    await kernel.start_kernel()
    async with attached(kernel) as client:
        yield client


@asynccontextmanager
async def running(
    manager: CondaKernelSpecManager, name: str
) -> AsyncIterator[tuple[AsyncKernelManager, AsyncKernelClient]]:
    kernel = AsyncKernelManager(kernel_spec_manager=manager, kernel_name=name)
    async with started(kernel) as client:
        yield kernel, client


async def printed(client: AsyncKernelClient, code: str) -> str:
    output: list[str] = []
    reply = await client.execute_interactive(
        code, output_hook=lambda message: output.append(message["content"].get("text", ""))
    )
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(output)


# The list --------------------------------------------------------------------------------------


def test_every_environment_is_listed_by_its_name(manager, make_prefix) -> None:
    for name, python in (("py313-data", "3.13.5"), ("py311-numpy1", "3.11.9")):
        make_prefix(name, python=python)
    shown = {n: s["spec"]["display_name"] for n, s in manager.get_all_specs().items()}
    assert shown == {
        "conda-image-py311-numpy1-python3": "py311-numpy1 - Python 3.11",
        "conda-image-py313-data-python3": "py313-data - Python 3.13",
    }


def test_a_new_environment_is_listed_and_a_removed_one_is_not(manager, make_prefix) -> None:
    assert manager.find_kernel_specs() == {}
    prefix = make_prefix("data")
    assert list(manager.find_kernel_specs()) == ["conda-image-data-python3"]
    shutil.rmtree(prefix)
    assert manager.get_all_specs() == {}


def test_the_servers_own_python_is_never_offered(manager) -> None:
    # ipykernel is installed beside the tests, so stock Jupyter offers it.
    assert "python3" in KernelSpecManager().find_kernel_specs()
    everywhere = CondaKernelSpecManager(sources=[])
    assert "python3" not in everywhere.find_kernel_specs()
    assert "python3" not in everywhere.get_all_specs()
    with pytest.raises(NoSuchKernel):
        everywhere.get_kernel_spec("python3")


def test_a_kernel_of_the_registry_too_is_listed_once_and_live(make_prefix, roots) -> None:
    prefix = make_prefix("data")
    place = Place("image", "", str(prefix), "data", "1", "3.13.5")
    for name in ("conda-image-data-python3", "other"):
        folder = roots / "registry" / name
        folder.mkdir(parents=True)
        document = plain_spec(place, "python3", check_document(IPYKERNEL, str(prefix)))
        (folder / "kernel.json").write_text(json.dumps(document))
    specs = manager_of(f"{roots}/envs/*", roots / "registry").get_all_specs()
    assert sorted(specs) == ["conda-image-data-python3", "other"]
    metadata = specs["conda-image-data-python3"]["spec"]["metadata"]
    assert metadata["kernel_provisioner"]["provisioner_name"] == "labcommons-conda"
    assert "kernel_provisioner" not in specs["other"]["spec"]["metadata"]


def test_only_allowed_kernels_are_listed_and_started(manager, make_prefix) -> None:
    make_prefix("one")
    make_prefix("two")
    manager.allowed_kernelspecs = {"conda-image-one-python3"}
    assert list(manager.get_all_specs()) == ["conda-image-one-python3"]
    with pytest.raises(NoSuchKernel):
        manager.get_kernel_spec("conda-image-two-python3")


def test_a_name_is_found_whatever_its_case(manager, make_prefix) -> None:
    make_prefix("data")
    assert manager.get_kernel_spec("Conda-Image-Data-Python3").language == "python"


def test_an_unknown_name_is_no_kernel(manager) -> None:
    with pytest.raises(NoSuchKernel):
        manager.get_kernel_spec("conda-image-nothing-python3")


def test_a_broken_environment_is_logged_once_with_its_reason(manager, make_prefix, caplog) -> None:
    make_prefix("broken", kernel=b"{")
    manager.log = logging.getLogger("test")
    for _ in range(3):
        manager.get_all_specs()
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert "broken" in warnings[0]
    assert "not valid JSON" in warnings[0]


def test_listing_runs_no_activation_script(manager, make_prefix, roots) -> None:
    scripts = make_prefix("data") / "etc/conda/activate.d"
    scripts.mkdir(parents=True)
    (scripts / "a.sh").write_text(f"touch {roots}/ran")
    manager.get_all_specs()
    assert not (roots / "ran").exists()


def test_the_listing_can_be_sent_to_a_browser(manager, make_prefix) -> None:
    make_prefix("data", kernel={**IPYKERNEL, "display_name": "漢字"})
    assert json.loads(json.dumps(manager.get_all_specs(), allow_nan=False))


# Kernels that run ------------------------------------------------------------------------------


async def test_a_kernel_runs_in_its_activated_environment(live_prefix, roots, monkeypatch) -> None:
    prefix = copy_of(live_prefix, roots)
    (prefix / "etc/conda/env_vars.d").mkdir(parents=True)
    hostile = f"a$(touch {roots}/made)`touch {roots}/made`$PATH"
    (prefix / "etc/conda/env_vars.d/lab.json").write_text(json.dumps({"LAB_VALUE": hostile}))
    (prefix / "etc/conda/activate.d").mkdir()
    (prefix / "etc/conda/activate.d/lab.sh").write_text('export LAB_SCRIPT="$CONDA_DEFAULT_ENV"')
    monkeypatch.setenv("VIRTUAL_ENV", "/wrong")
    asked = ("CONDA_PREFIX", "PATH", "LAB_VALUE", "LAB_SCRIPT", "VIRTUAL_ENV")
    async with running(manager_of(f"{roots}/envs/*"), NAME) as (kernel, client):
        assert type(kernel.provisioner) is CondaProvisioner
        code = f"import json, os, sys; print(json.dumps([sys.prefix, *map(os.getenv, {asked})]))"
        seen = json.loads(await printed(client, code))
    assert seen[0] == seen[1] == str(prefix)
    assert seen[2].split(":")[0] == f"{prefix}/bin"
    assert seen[3:] == [hostile, "lab-env", None]
    assert not (roots / "made").exists()


async def test_a_kernel_can_be_interrupted_and_restarted(live_prefix) -> None:
    manager = manager_of(f"{live_prefix.parent}/*")
    async with running(manager, NAME) as (kernel, client):
        await printed(client, "kept = 1")
        request = client.execute("print('busy', flush=True)\nwhile True: pass")
        while (await client.get_iopub_msg())["content"].get("text") != "busy\n":
            pass
        await kernel.interrupt_kernel()
        while (reply := await client.get_shell_msg())["parent_header"]["msg_id"] != request:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"
        await kernel.restart_kernel()
        await client.wait_for_ready(timeout=60)
        assert await printed(client, "print('kept' in globals())") == "False\n"


def gone(prefix: Path) -> None:
    shutil.rmtree(prefix)


def without_ipykernel(prefix: Path) -> None:
    (prefix / "pyvenv.cfg").unlink()
    next(prefix.glob("lib/python3*/site-packages/borrowed.pth")).unlink()


def without_program(prefix: Path) -> None:
    (prefix / "bin/python").unlink()


def not_a_program(prefix: Path) -> None:
    (prefix / "bin/python").unlink()
    (prefix / "bin/python").write_text("#!/nowhere/python\n")
    (prefix / "bin/python").chmod(0o755)


def with_endless_script(prefix: Path) -> None:
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    (prefix / "etc/conda/activate.d/a.sh").write_text("sleep 1000")


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (gone, "is gone. Choose another kernel"),
        (without_ipykernel, "conda install --prefix {prefix} ipykernel"),
        (without_program, "conda install --prefix {prefix} ipykernel"),
        (not_a_program, "cannot start: {prefix}/bin/python"),
        (with_endless_script, "did not end within 0.5 s"),
    ],
)
async def test_a_kernel_that_cannot_start_explains_in_the_notebook(
    live_prefix, roots, break_it, reason
) -> None:
    prefix = copy_of(live_prefix, roots)
    manager = manager_of(f"{roots}/envs/*")
    kernel = AsyncKernelManager(kernel_spec_manager=manager, kernel_name=NAME)
    kernel.config.CondaProvisioner.activation_timeout = 0.5
    assert kernel.kernel_spec.argv  # chosen while it was still whole
    break_it(prefix)
    async with started(kernel) as client:
        reply = (await client.execute_interactive("1 + 1"))["content"]
        assert (reply["status"], reply["ename"]) == ("error", "KernelCannotStart")
        assert reason.format(prefix=prefix) in reply["evalue"]


def test_a_stand_in_ends_with_its_server(tmp_path) -> None:
    ports = {name: 1 + index for index, name in enumerate(("shell_port", "control_port"))}
    ports |= {"stdin_port": 3, "hb_port": 4, "iopub_port": 5}
    connection = {"key": "k", "signature_scheme": "hmac-sha256", "transport": "ipc"}
    file = tmp_path / "c.json"
    file.write_text(json.dumps({**connection, **ports, "ip": str(tmp_path / "s")}))
    command = f"{sys.executable} -I {error_kernel.__file__} {file} & echo $!; sleep 3"
    shell = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    deadline = time.monotonic() + 20
    while "standin" in command_of(int(shell.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


async def test_a_site_may_have_the_start_fail_instead(live_prefix, roots) -> None:
    prefix = copy_of(live_prefix, roots)
    kernel = AsyncKernelManager(kernel_spec_manager=manager_of(f"{roots}/envs/*"), kernel_name=NAME)
    kernel.config.CondaProvisioner.explain = False
    assert kernel.kernel_spec.argv
    shutil.rmtree(prefix)
    with pytest.raises(KernelCannotStart, match="is gone"):
        await kernel.start_kernel()


async def test_a_deleted_environment_is_explained_at_the_restart_and_works_when_it_is_back(
    live_prefix, roots
) -> None:
    prefix = copy_of(live_prefix, roots)
    async with running(manager_of(f"{roots}/envs/*"), NAME) as (kernel, client):
        shutil.rmtree(prefix)
        await kernel.restart_kernel(now=True)
        await client.wait_for_ready(timeout=60)
        assert "is gone" in (await client.execute_interactive("1"))["content"]["evalue"]
        copy_of(live_prefix, roots)
        await kernel.restart_kernel()
        await client.wait_for_ready(timeout=60)
        assert await printed(client, "print(6 * 7)") == "42\n"


async def test_an_environment_without_ipykernel_starts_once_it_is_installed(
    live_prefix, roots
) -> None:
    prefix = copy_of(live_prefix, roots)
    shutil.rmtree(prefix / "share")
    age(prefix)
    manager = manager_of(f"{roots}/envs/*")
    shown = manager.get_all_specs()[NAME]["spec"]
    assert shown["display_name"].endswith("(cannot start: ipykernel is missing)")
    assert "ipykernel" in shown["metadata"]["labcommons"]["reason"]
    async with running(manager, NAME) as (kernel, client):
        reason = (await client.execute_interactive("1"))["content"]["evalue"]
        assert f"conda: conda install --prefix {prefix} ipykernel" in reason
        write_kernel(prefix)
        await kernel.restart_kernel()
        await client.wait_for_ready(timeout=60)
        assert await printed(client, "print(6 * 7)") == "42\n"


async def test_a_kernel_that_dies_as_it_starts_tells_its_last_words(live_prefix, roots) -> None:
    prefix = copy_of(live_prefix, roots)
    packages = next(prefix.glob("lib/python3*/site-packages"))
    (packages / "ipykernel_launcher.py").write_text("raise ImportError('libzmq is too old')\n")
    manager = manager_of(f"{roots}/envs/*")
    kernel = AsyncKernelManager(kernel_spec_manager=manager, kernel_name=NAME)
    await kernel.start_kernel()
    while await kernel.is_alive():
        await asyncio.sleep(0.05)
    await kernel.restart_kernel(now=True)  # as the server does with every kernel that died
    async with attached(kernel) as client:
        said = (await client.execute_interactive("1"))["content"]["evalue"]
    assert "ImportError: libzmq is too old" in said
    assert "--force-reinstall" in said


async def test_a_withdrawn_environment_is_marked_and_explains(live_prefix, roots) -> None:
    prefix = copy_of(live_prefix, roots)
    manager = manager_of(f"{roots}/envs/*")
    kernel = AsyncKernelManager(kernel_spec_manager=manager, kernel_name=NAME)
    assert kernel.kernel_spec.argv
    shutil.copytree(live_prefix, roots / "envs/lab-env2", symlinks=True)
    notes = {"schema": 1, "version": "7", "withdrawn": "CVE-2026-1"}
    write_notes(prefix, json.dumps(notes))
    assert "(withdrawn)" in manager.get_all_specs()[NAME]["spec"]["display_name"]
    async with started(kernel) as client:
        said = (await client.execute_interactive("1"))["content"]["evalue"]
    assert "version 7 of it was withdrawn (CVE-2026-1)" in said
    assert "or use lab-env2 - Python 3." in said


async def test_a_kernel_keeps_to_the_version_it_began_with(live_prefix, roots) -> None:
    """envs/lab-env is a link to one of its versions, which an administrator swaps."""
    (roots / "envs/.versions").mkdir(parents=True)
    for version in ("1", "2"):
        shutil.copytree(live_prefix, roots / "envs/.versions" / version, symlinks=True)
    link = roots / "envs/lab-env"
    link.symlink_to(".versions/1")
    code = "import os, sys; print(sys.prefix, os.environ['CONDA_DEFAULT_ENV'])"
    async with running(manager_of(f"{roots}/envs/*"), NAME) as (kernel, client):
        (roots / "envs/new").symlink_to(".versions/2")
        (roots / "envs/new").rename(link)
        assert await printed(client, code) == f"{roots}/envs/.versions/1 lab-env\n"
        await kernel.restart_kernel()
        await client.wait_for_ready(timeout=60)
        assert await printed(client, code) == f"{roots}/envs/.versions/2 lab-env\n"


async def test_two_environments_of_one_name_are_two_kernels_each_in_its_own(
    live_prefix, roots
) -> None:
    patterns = [f"{roots}/{folder}/*" for folder in ("conda", "mamba")]
    for pattern in patterns:
        shutil.copytree(live_prefix, pattern.replace("*", "torch"), symlinks=True)

    def kernels_of(patterns: list[str]) -> dict[str, str]:
        sources = [{"id": "personal", "pattern": pattern, "label": ""} for pattern in patterns]
        manager = CondaKernelSpecManager(sources=sources, kernel_dirs=[])
        specs = manager.get_all_specs().items()
        return {name: each["spec"]["metadata"]["labcommons"]["prefix"] for name, each in specs}

    found = kernels_of(patterns)
    assert sorted(found.values()) == [f"{roots}/conda/torch", f"{roots}/mamba/torch"]
    plain, hashed = sorted(found)  # that of the first folder is nobody else's
    assert plain == "conda-personal-torch-python3"
    assert re.fullmatch("conda-personal-torch-python3-[0-9a-f]{8}", hashed)
    sources = [{"id": "personal", "pattern": pattern, "label": ""} for pattern in patterns]
    manager = CondaKernelSpecManager(sources=sources, kernel_dirs=[])
    for name, prefix in found.items():
        async with running(manager, name) as (_, client):
            assert await printed(client, "import sys; print(sys.prefix)") == f"{prefix}\n"


@pytest.mark.parametrize(
    "name", ["we ird", 'it\'s "quoted" $HOME `id`', "环境-ü", "n" * 200, "a%b{c}"]
)
async def test_a_kernel_runs_whatever_its_environment_is_called(live_prefix, roots, name) -> None:
    shutil.copytree(live_prefix, roots / "envs" / name, symlinks=True)
    manager = manager_of(f"{roots}/envs/*")
    [kernel] = manager.get_all_specs()
    async with running(manager, kernel) as (_, client):
        said = await printed(
            client, "import os, sys; print(sys.prefix, os.environ['CONDA_PREFIX'])"
        )
    assert said == f"{roots}/envs/{name} {roots}/envs/{name}\n"


async def test_a_script_that_preloads_a_library_that_is_not_there_costs_a_warning_only(
    live_prefix, roots
) -> None:
    prefix = copy_of(live_prefix, roots)
    (prefix / "etc/conda/activate.d").mkdir(parents=True)
    (prefix / "etc/conda/activate.d/a.sh").write_text("export LD_PRELOAD=/gone.so; echo hello")
    async with running(manager_of(f"{roots}/envs/*"), NAME) as (_, client):
        assert await printed(client, "import os; print(os.environ['LD_PRELOAD'])") == "/gone.so\n"


async def test_kernels_run_within_the_sites_limits(live_prefix) -> None:
    manager = manager_of(f"{live_prefix.parent}/*")
    kernel = AsyncKernelManager(kernel_spec_manager=manager, kernel_name=NAME)
    kernel.config.CondaProvisioner.limits = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": 300}
    kernel.config.CondaProvisioner.nice = 3
    code = "import os, resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), os.nice(0))"
    async with started(kernel) as client:
        assert await printed(client, code) == f"(300, 300) {os.nice(0) + 3}\n"


def test_nbconvert_runs_a_notebook_by_the_registrys_name(live_prefix, tmp_path) -> None:
    """Stock Jupyter, that knows nothing of ours, with the plain kernelspec on JUPYTER_PATH."""
    place = Place("image", "", str(live_prefix), "lab-env", "1", "3.13")
    folder = tmp_path / "registry/kernels" / NAME
    folder.mkdir(parents=True)
    document = plain_spec(place, "python3", check_document(IPYKERNEL, str(live_prefix)))
    (folder / "kernel.json").write_text(json.dumps(document))
    code = "import os, sys; print(sys.prefix, os.environ['CONDA_PREFIX'])"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    notebook.metadata.kernelspec = {"name": NAME, "display_name": "lab-env", "language": "python"}
    nbformat.write(notebook, tmp_path / "n.ipynb")
    run = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--execute", "--to", "markdown", "--stdout", "n.ipynb"],
        cwd=tmp_path,
        env={**os.environ, "JUPYTER_PATH": str(tmp_path / "registry")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert f"{live_prefix} {live_prefix}" in run.stdout, run.stderr


def test_a_personal_environment_says_that_it_is_one(roots, make_prefix) -> None:
    make_prefix("mine")
    source = {"id": "personal", "pattern": f"{roots}/envs/*", "label": "personal"}
    specs = CondaKernelSpecManager(sources=[source], kernel_dirs=[]).get_all_specs()
    spec = specs["conda-personal-mine-python3"]["spec"]
    assert spec["display_name"] == "mine (personal) - Python 3.13"


def test_a_team_folder_that_only_others_may_read_breaks_nothing(
    roots, make_prefix, as_nobody
) -> None:
    (make_prefix("closed", root="team").parent).chmod(0)
    write_kernel(make_prefix("open"))
    sources = [
        {"id": "team-bio", "pattern": f"{roots}/team/*", "label": "team: bio"},
        {"id": "image", "pattern": f"{roots}/envs/*", "label": ""},
    ]
    manager = CondaKernelSpecManager(sources=sources, kernel_dirs=[])
    with as_nobody():
        assert list(manager.get_all_specs()) == ["conda-image-open-python3"]
    (roots / "team").chmod(0o755)

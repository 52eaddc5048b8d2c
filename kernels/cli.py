"""``labcommons kernels list|show`` in a user's server: the kernels that a notebook can use.

The list is the server's own, by its own configuration: what JupyterLab shows is shown here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from jupyter_core.application import JupyterApp
from traitlets import Unicode

from kernels.manager import CondaKernelSpecManager, MissingKernel

_LIST = """examples:
  labcommons kernels list
  labcommons kernels list --problems
  labcommons kernels list --source personal --json"""
_SHOW = """examples:
  labcommons kernels show conda-image-py313-data-python3
  labcommons kernels show conda-personal-mine-python3 --json

exit status: 0 it can start; 1 it cannot, or there is none of this name; 2 wrong usage"""


class _Server(JupyterApp):  # type: ignore[misc]
    """The server's configuration, without the server."""

    name = "jupyter-server"
    config_file_name = Unicode("jupyter_server_config")


def manager() -> CondaKernelSpecManager:
    """The kernel list as the server's configuration makes it."""
    server = _Server()
    server.load_config_file(suppress_errors=False)
    return CondaKernelSpecManager(config=server.config)


def kernels(list_of: CondaKernelSpecManager) -> list[dict[str, Any]]:
    """All kernels as plain data, in the order of their names."""
    return [_plain(name, item["spec"]) for name, item in sorted(list_of.get_all_specs().items())]


def _plain(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    mark = spec["metadata"].get("labcommons")
    mark = mark if isinstance(mark, dict) else {}
    return {
        "name": name,
        "display_name": spec["display_name"],
        "language": spec["language"],
        **{key: mark.get(key) for key in ("source", "environment", "version", "prefix")},
        "state": mark.get("state", "healthy"),
        "reason": mark.get("reason", ""),
        "deprecated": mark.get("deprecated"),
        "argv": spec["argv"],
        "env": spec["env"],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """``labcommons kernels``; its exit status."""
    parser = argparse.ArgumentParser(
        prog="labcommons kernels",
        description="The kernels that a notebook can use here.",
        epilog=_LIST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="{list,show}")
    listing = _command(commands, "list", "all kernels, and why some cannot start", _LIST)
    listing.add_argument("--source", help="only of one: image, shared, team-NAME, personal, …")
    listing.add_argument("--problems", action="store_true", help="only those that cannot start")
    showing = _command(commands, "show", "one kernel, and what to do where it cannot start", _SHOW)
    showing.add_argument("name", help="the kernel's name, as notebooks have it")
    chosen = parser.parse_args(arguments)
    if chosen.command == "list":
        return _list(kernels(manager()), chosen)
    return _show(manager(), chosen)


def _command(commands: Any, name: str, about: str, examples: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    return command


def _list(found: list[dict[str, Any]], chosen: argparse.Namespace) -> int:
    if chosen.source:
        found = [kernel for kernel in found if kernel["source"] == chosen.source]
    if chosen.problems:
        found = [kernel for kernel in found if kernel["state"] != "healthy"]
    if chosen.json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    width = max((len(kernel["name"]) for kernel in found), default=0)
    for kernel in found:
        print(f"{kernel['name']:{width}}  {kernel['display_name']}")
    if not found:
        print("No kernel fits." if chosen.source or chosen.problems else "There is no kernel yet.")
    return 0


def _show(list_of: CondaKernelSpecManager, chosen: argparse.Namespace) -> int:
    found = {kernel["name"]: kernel for kernel in kernels(list_of)}
    kernel = found.get(chosen.name.lower())
    if kernel is None and (other := list_of.resolve(chosen.name)):
        kernel = found.get(other.kernel.name)
    if kernel is None:
        print(f"labcommons: {_why_not(list_of, chosen.name)}", file=sys.stderr)
        return 1
    if chosen.json:
        print(json.dumps(kernel, indent=2, ensure_ascii=False))
    else:
        for key, value in kernel.items():
            if value:
                shown = " ".join(value) if key == "argv" else value
                print(f"{key.replace('_', ' '):13} {shown}")
    return 0 if kernel["state"] == "healthy" else 1


def _why_not(list_of: CondaKernelSpecManager, name: str) -> str:
    try:
        list_of.get_kernel_spec(name)
    except MissingKernel as error:
        return str(error)
    except KeyError:
        pass
    return f"there is no kernel “{name}”; “labcommons kernels list” shows those that there are"


if __name__ == "__main__":
    sys.exit(main())

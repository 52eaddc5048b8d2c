"""In every IPython kernel: ``%pip``, ``%conda`` and the like, and a button below an answer.

What stands before pip and conda (``kernels.packages``) answers in words. Where a copy of one's own
is the way, it leaves an offer in the file that LABCOMMONS_OFFER names, whichever program of the
cell was asked (``%pip``, ``!pip``, a subprocess); when the cell has ended it is shown, as data that
JupyterLab makes a button of and others show as the command. Standard library only, Python 3.8.
"""

import importlib
import json
import os
import shlex
import sys
import tempfile
from contextlib import suppress

MIME = "application/vnd.labcommons.packages+json"
_MOST = 64 * 1024  # bytes of offers
# Commands of conda that would ask, where nobody can answer.
_ASKING = ("install", "create", "remove", "uninstall", "update", "upgrade")


def load_ipython_extension(shell):
    """Called by IPython."""
    for name in ("conda", "mamba", "micromamba"):
        shell.register_magic_function(_conda(shell, name), "line", name)
    shell.register_magic_function(_pip(shell), "line", "pip")
    shell.register_magic_function(lambda line: shell.system("uv " + line), "line", "uv")
    if hasattr(shell, "kernel"):
        handle, path = tempfile.mkstemp(prefix="labcommons-offer-")
        os.close(handle)
        os.environ["LABCOMMONS_OFFER"] = path
        shell.events.register("post_run_cell", lambda *_: _show(shell, path))


def _pip(shell):
    def pip(line):
        """Run pip for this kernel's Python."""
        before = _versions()
        shell.system(f"{shlex.quote(sys.executable)} -m pip {line}")
        importlib.invalidate_caches()
        after = _versions()
        changed = [name for name in before if before[name] != after.get(name)]
        used = sorted(n for n in changed if n.replace("-", "_") in sys.modules)
        if used:
            print("Restart the kernel to use the new {}.".format(", ".join(used)))

    return pip


def _conda(shell, program):
    def conda(line):
        """Run conda for this kernel's environment."""
        words = line.split()
        if words and words[0] in _ASKING and not {"-y", "--yes"} & set(words):
            line += " --yes"
        shell.system(f"{program} {line}")
        importlib.invalidate_caches()

    return conda


def _versions():
    """Versions of this Python's distributions by name, from the names of their folders."""
    found = {}
    for folder in sys.path:
        with suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.endswith(".dist-info"):
                    package, _, version = name[: -len(".dist-info")].rpartition("-")
                    found[package.lower()] = version
    return found


def offers(text):
    """The offers of a cell, those for one environment as one; what is none is left out."""
    found = {}
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            one = json.loads(line)
            key = (one["source"], one["name"], bool(one["remove"]))
            kept = found.setdefault(key, one)
            for kind in ("pip", "add", "remove", "channels"):
                kept[kind] = list(dict.fromkeys([*kept.get(kind, ()), *one.get(kind, ())]))
    return list(found.values())


def _show(shell, path):
    if hasattr(shell.display_pub, "outputs"):
        return  # below %%capture, nobody would see it; the cell around it shows it
    try:
        with open(path, "r+", encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST)
            file.truncate(0)
    except OSError:
        return
    for one in offers(text) if text else ():
        data = {MIME: one, "text/plain": one["command"]}
        shell.display_pub.publish(data=data, metadata={})

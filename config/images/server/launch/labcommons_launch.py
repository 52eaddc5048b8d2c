"""Starts a person's server: JupyterHub's single-user server without what it never uses.

JupyterHub's modules import one another, so that the server comes with the hub's database, pages and
metrics, two more HTTP clients, and JupyterLab's shop for extensions: over half of a start's time.
Instead of each of these stands a module with the few names that are imported by name; as soon as
anything else of one is asked for, all are gone and the real ones are imported. The image's build
compares a server that was started so with a plain one (compare.py), and stops where they differ.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

# What garbage collection is set to, again, once the server has started (labcommons_light).
THRESHOLDS = gc.get_threshold()

_replaced: dict[str, Later] = {}
_lock = threading.Lock()


class Later(ModuleType):
    """A module that is imported when something of it is used for which it has no stand-in.

    Args:
        package: whether it has modules of its own.
        names: stand-ins.
    """

    def __init__(self, name: str, package: bool = False, **names: object) -> None:
        super().__init__(name)
        self.__dict__.update(names, _package=package)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__") and not (self._package and attribute == "__path__"):
            raise AttributeError(attribute)
        return getattr(self._real(), attribute)

    def _real(self) -> ModuleType:
        real_ones()
        return importlib.import_module(self.__name__)


def real_ones() -> None:
    """Take the stand-ins away: what is imported from now on is what is installed."""
    with _lock:
        for name, module in list(_replaced.items()):
            if sys.modules.get(name) is module:
                del sys.modules[name]
            package, _, own = name.rpartition(".")
            if vars(sys.modules.get(package, module)).get(own) is module:
                delattr(sys.modules[package], own)
        _replaced.clear()


def stand_ins() -> None:
    """Put stand-ins where nothing was imported yet."""
    import jupyterhub  # noqa: F401
    from jupyter_server.prometheus.log_functions import prometheus_log_method
    from labcommons_fetch import fetch

    for module in (
        # `except` and `isinstance` of what never comes: nothing here has a database or is the hub.
        Later("sqlalchemy", package=True),
        Later("sqlalchemy.exc", SQLAlchemyError=type("SQLAlchemyError", (Exception,), {})),
        Later("jupyterhub.orm"),
        Later("jupyterhub.roles"),
        Later("jupyterhub.handlers.pages", HealthCheckHandler=type("HealthCheckHandler", (), {})),
        # Counted where Jupyter Server counts its requests, instead of in a metric of the hub's.
        Later("jupyterhub.metrics", prometheus_log_method=prometheus_log_method),
        Later("aiohttp", package=True),
        Later("jupyterhub.httpclient", fetch=fetch),
        # Of IPython, kernels of old are asked where its folder is.
        Later("IPython.paths", get_ipython_dir=_ipython_dir),
        # JupyterLab's lists of allowed extensions, and its shop: neither is configured.
        Later("requests", package=True),
        Later(
            "jupyterlab.extensions.pypi",
            PyPIExtensionManager=_of("jupyterlab.extensions.pypi", "PyPIExtensionManager"),
        ),
    ):
        if module.__name__ not in sys.modules:
            sys.modules[module.__name__] = _replaced[module.__name__] = module
            package, _, own = module.__name__.rpartition(".")
            if package in sys.modules:
                setattr(sys.modules[package], own, module)


def _ipython_dir() -> str:
    return os.path.normpath(os.path.expanduser(os.environ.get("IPYTHONDIR") or "~/.ipython"))


def _of(module: str, name: str) -> Callable[..., Any]:
    """A function of a module, imported when it is called."""

    def call(*arguments: Any, **named: Any) -> Any:
        real_ones()
        return getattr(importlib.import_module(module), name)(*arguments, **named)

    return call


def server() -> Callable[[], object]:
    """The single-user server's main; imported plainly where the stand-ins do not fit."""
    before = set(sys.modules)
    try:
        stand_ins()
        from jupyterhub.singleuser import main
    except Exception as error:  # whatever it is, the server has to start
        print(f"labcommons: starting without stand-ins: {error!r}", file=sys.stderr, flush=True)
        real_ones()
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("jupyterhub", "jupyterlab"):
                del sys.modules[name]
        from jupyterhub.singleuser import main
    return main  # type: ignore[no-any-return]


def main() -> None:
    """Run the server, with ``sys.argv`` as its arguments."""
    # What is made while it starts stays: looking for garbage in it is in vain.
    gc.set_threshold(1_000_000)
    sys.exit(server()())

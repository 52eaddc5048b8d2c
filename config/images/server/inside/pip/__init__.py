"""``pip`` of every Python in a server: stands before the environment's own, on PYTHONPATH.

What would change an environment is asked of ``kernels.packages`` first, which answers where that
cannot be. All else, and what is the person's own, is done by the environment's pip, or by the
server's where it has none. Plain words of any Python, as it is imported by whatever one is there.
"""

import os
import subprocess
import sys

from labcommons_real import PARTS, become, find

_ANSWER = [PARTS + "/server/bin/python", "-I", "-m", "kernels.packages", "pip"]
_SPARE = PARTS + "/pip"  # for environments without one
_GO_ON = 100  # exit status of an answer that leaves it to pip
_CHANGING = ("install", "uninstall")


def _words():
    """What pip was called with, as a program; None where it is only imported."""
    if os.path.basename(sys.argv[0]).lower().startswith("pip"):
        return sys.argv[1:]
    try:
        with open("/proc/self/cmdline", "rb") as file:
            given = file.read().split(b"\0")
    except OSError:
        return None
    option = given[given.index(b"pip") - 1] if b"pip" in given[1:] else b""
    named = option[:1] == b"-" and option[-1:] == b"m"
    return sys.argv[1:] if sys.argv[0] == "-m" and named else None


def _command(words):
    return next((word for word in words if not word.startswith("-")), "")


def _answered(words):
    """The exit status where there is an answer, and nothing is left to do; None: pip goes on."""
    if _command(words) not in _CHANGING or not os.path.exists(_ANSWER[0]):
        return None
    code = subprocess.call([*_ANSWER, sys.prefix, *words])
    return None if code == _GO_ON else code


def _for_pip(words):
    """The same words, as pip is to have them."""
    if _command(words) not in _CHANGING:
        return words
    # What is in a home would be seen by no kernel, or by all of this Python: never there.
    words = [word for word in words if word != "--user"]
    if _command(words) != "uninstall" or {"-y", "--yes"} & set(words):
        return words
    # pip asks before it uninstalls: in a terminal it may; elsewhere nobody could answer.
    in_notebook = os.environ.get("LABCOMMONS_OFFER")  # its programs have a terminal of their own
    if not in_notebook and sys.stdin is not None and sys.stdin.isatty():
        os.environ.pop("PIP_NO_INPUT", None)
        return words
    return [*words, "--yes"]


class _Asking(object):  # noqa: UP004  (of Python 2, too)
    """For who imports pip and calls it: ``pip.main([…])`` and all its forms end in one function."""

    def find_spec(self, name, path=None, target=None):
        if name != "pip._internal.cli.main":
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        usual = spec.loader.exec_module

        def exec_module(module):
            usual(module)
            real = module.main

            def main(args=None):
                words = list(sys.argv[1:] if args is None else args)
                sys.stdout.flush()
                code = _answered(words)
                return real(_for_pip(words)) if code is None else code

            module.main = main

        spec.loader.exec_module = exec_module
        return spec


def _become_real():
    if find("pip") is None:
        if sys.version_info < (3, 9):  # noqa: UP036  (of an environment)
            raise ImportError("pip is not in this environment, and its Python is too old for ours")
        sys.path.append(_SPARE)
    become("pip")


_given = _words()
if _given is None:
    sys.meta_path.insert(0, _Asking())
else:
    _code = _answered(_given)
    if _code is not None:
        raise SystemExit(_code)
    sys.argv[1:] = _for_pip(sys.argv[1:])
_become_real()

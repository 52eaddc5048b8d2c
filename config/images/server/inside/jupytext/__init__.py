"""``jupytext`` of every Python in a server: the environment's own, for which what names no kernel
runs in that of the active environment, as everywhere here.
"""

import functools
import sys

from labcommons_real import become


def _kernel_of(plain):
    @functools.wraps(plain)
    def kernelspec_from_language(language):
        try:
            return plain(language)
        except ValueError:
            if language != "python":
                raise
            # No kernelspec has this Python as its program: all start by way of the server's.
            return {"name": "python3", "language": "python", "display_name": "Python 3"}

    return kernelspec_from_language


def _with_language(plain):
    @functools.wraps(plain)
    def read(*given, **named):
        notebook = plain(*given, **named)
        if "--execute" in sys.argv and "kernelspec" not in notebook.metadata:
            notebook.metadata.setdefault("jupytext", {}).setdefault("main_language", "python")
        return notebook

    return read


become("jupytext")
try:
    from jupytext import cli as _cli

    _cli.kernelspec_from_language = _kernel_of(_cli.kernelspec_from_language)
    _cli.read = _with_language(_cli.read)
except (ImportError, AttributeError):  # of a version that is built otherwise
    pass

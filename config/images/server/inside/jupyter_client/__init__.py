"""``jupyter_client`` of every Python in a server: the environment's own, which takes for a name
that is no folder the kernel that is meant by it.

nbclient, papermill, jupytext, nbconvert, ``jupyter run`` and ``console`` of an environment look for
kernels in folders alone. Asked only where they would fail; programs end with one sentence.
"""

import json
import os
import subprocess
import sys

from labcommons_real import PARTS, become

_PROGRAM = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else ""
_OURS = [PARTS + "/server/bin/python", "-I", "-m", "kernels.programs"]
_ENDING = ("jupyter", "jupytext", "papermill")


def _meant(name):
    """The name of the kernel that a name means, and a sentence where there is none."""
    try:
        said = subprocess.Popen([*_OURS, "meant", name], stdout=subprocess.PIPE).communicate()[0]
        found = json.loads(said.decode("utf-8"))
        return found["name"], found["sentence"]
    except (OSError, ValueError, LookupError):
        return None, None


def _follow(kernelspec):
    """Have names be understood as in JupyterLab."""
    from traitlets.log import get_logger

    plain = kernelspec.KernelSpecManager.get_kernel_spec

    class Unknown(kernelspec.NoSuchKernel):
        """No such kernel; the sentence says which is nearest."""

        def __init__(self, name, sentence):
            kernelspec.NoSuchKernel.__init__(self, name)
            self.sentence = sentence

        def __str__(self):
            return self.sentence

        def _render_traceback_(self):
            return ["NoSuchKernel: " + self.sentence]  # in a cell

    # Who reads its last line knows it by this name.
    Unknown.__name__, Unknown.__module__ = "NoSuchKernel", kernelspec.__name__
    Unknown.__qualname__ = "NoSuchKernel"

    # Uncaught, of a script: not all the calls of nbclient and asyncio that it came through.
    usual = sys.excepthook

    def excepthook(kind, error, trace):
        if not isinstance(error, Unknown):
            return usual(kind, error, trace)
        sys.stdout.flush()
        line = "".join(error._render_traceback_()) + "\n"
        os.write(2, line.encode("utf-8"))

    sys.excepthook = excepthook

    def tells_more(record):
        """Of a kernel manager, which logs each error and raises it."""
        return not (record.exc_info and isinstance(record.exc_info[1], Unknown))

    def get_kernel_spec(self, kernel_name):
        """The kernelspec of a name. Raises NoSuchKernel."""
        try:
            return plain(self, kernel_name)
        except kernelspec.NoSuchKernel:
            name, sentence = _meant(kernel_name)
            if name:
                if _PROGRAM.startswith(_ENDING):
                    sys.stderr.write("{}: {} -> {}\n".format(_PROGRAM, kernel_name or "-", name))
                return plain(self, name)
            if not sentence:
                raise
        if _PROGRAM.startswith(_ENDING):
            sys.stdout.flush()
            os.write(2, (_PROGRAM + ": " + sentence + "\n").encode("utf-8"))
            raise SystemExit(1)
        log = get_logger()
        getattr(log, "logger", log).addFilter(tells_more)
        raise Unknown(kernel_name, sentence)

    kernelspec.KernelSpecManager.get_kernel_spec = get_kernel_spec


if _PROGRAM == "jupyter-run" and any(word.endswith(".ipynb") for word in sys.argv):
    os.execv(_OURS[0], [*_OURS, "run", *sys.argv[1:]])  # noqa: S606  (says what to take)
become("jupyter_client")
try:
    from jupyter_client import kernelspec as _kernelspec

    _follow(_kernelspec)
except (ImportError, AttributeError):  # of a version that is built otherwise
    pass

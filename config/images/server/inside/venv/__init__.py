"""Python's own ``venv``, whose environments get pip where this Python cannot give it (ensurepip).

On PYTHONPATH, so that no Python has to be changed. Debian's, as the offline channel has it, leaves
ensurepip out and tells people to become root.
"""

import glob
import os
import subprocess
from importlib.util import find_spec

from labcommons_real import PARTS, become

_SPARE = PARTS + "/pip"


def _setup_pip(self, context):
    """Give a new environment pip from the server's wheel."""
    program = [context.env_exec_cmd, "-I", _SPARE + "/pip", "install", "--quiet", "--no-index"]
    # The one that runs is seen as installed, wherever it is.
    program.append("--ignore-installed")
    wheels = glob.glob(_SPARE + "/pip-*.whl")
    subprocess.check_call(program + ["--no-warn-script-location"] + wheels)


_real = become("venv")
if find_spec("ensurepip") is None:
    _real.EnvBuilder._setup_pip = _setup_pip

"""Our own pip, run as if by another Python, of which nothing is run.

``python -I pip_as.py DESCRIPTION ARGUMENTS…``: DESCRIPTION is a JSON file with ``markers`` (as in
PEP 508) and ``installed``, a folder with the metadata of what that Python has. ``pip --python``
would run that Python, and so whatever a package put into it, beside the logins that pip was given.
"""

import json
import sys
from pathlib import Path

from pip._internal.cli import cmdoptions
from pip._internal.cli.main import main
from pip._vendor.packaging import markers


def run() -> int:
    described = json.loads(Path(sys.argv[1]).read_bytes())
    # Types of the packaging in pip differ from pip to pip.
    vars(markers)["default_environment"] = lambda: dict(described["markers"])
    # pip has been imported and finds its own parts; on the path is what it takes for installed.
    sys.path[:] = [place for place in sys.path if not place.endswith("site-packages")]
    sys.path.append(described["installed"])
    # Before pip 23.3 a version of Python could not be named without --target.
    cmdoptions.check_dist_restriction = lambda *_, **__: None
    return main(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(run())

"""The site's own configuration of the hub, and what ``watched_hub`` puts over it."""

import sys
from pathlib import Path

root = Path(__file__).parents[2]
sys.path.insert(0, str(root / "tests"))

load_subconfig(str(root / "config" / "jupyterhub_config.py"))  # noqa: F821 - traitlets gives it

from rig.watched_hub import configure

configure(get_config())  # noqa: F821

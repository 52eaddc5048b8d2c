"""Names of environments outside images, and of the folder that has their versions. Pure."""

from __future__ import annotations

import re

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text

# As image environments are named, so that every environment can be promoted.
_ENVIRONMENT = re.compile(r"[a-z0-9]+((\.|_|-)[a-z0-9]+)*")
MAX_NAME = 64
# Below a folder of environments: NAME/VERSION, which NAME beside it leads to.
VERSIONS = ".versions"


ENVIRONMENT_NAME = Text(
    "environment_name",
    N_(
        "“{name}” cannot be an environment's name: small letters and digits, with single “.”, "
        "“_” or “-” between them, at most 64 characters."
    ),
)


def check_name(name: object) -> str:
    """An environment's name. Raises BadRequest for what could be a path or hurt a kernel's name."""
    if isinstance(name, str) and len(name) <= MAX_NAME and _ENVIRONMENT.fullmatch(name):
        return name
    raise BadRequest(ENVIRONMENT_NAME(name=str(name)[:80]))

"""The .condarc of users' servers: the site's channels and mirrors, and where packages are. Pure.

It is the system's own (``/etc/conda/condarc``): what a person writes in ``~/.condarc`` wins.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from commons.scopes import IMAGE, Scope
from commons.site import Environments
from commons.site.mirror import PYPI_INDEX
from environments.own_channels import is_own

PACKAGES = "/opt/labcommons/pkgs"  # of images, in servers
_IMAGE_ENVIRONMENTS = "/opt/conda/envs"


def condarc(settings: Environments, scopes: Sequence[Scope]) -> str:
    """The file's text. JSON is YAML, and nothing in a name can break out of it."""
    custom: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for channel, places in settings.mirrors.items():
        urls = [place.rstrip("/") for place in places if "://" in place]
        if not urls or "://" in channel:
            continue
        above, _, last = urls[0].rpartition("/")
        if last == channel:
            custom[channel] = above
        elif channel == "defaults":
            several[channel] = [f"{url}/{part}" for url in urls[:1] for part in ("main", "r")]
        else:
            several[channel] = urls
    folders = [str(scope.environments) for scope in reversed(scopes) if scope != IMAGE]
    lines = {
        # The site's own want a token, which servers do not have.
        "channels": list(settings.mirrors) or [c for c in settings.channels if not is_own(c)],
        "channel_priority": "strict",
        # The first one is written to, the second only read.
        "pkgs_dirs": ["~/.conda/pkgs", PACKAGES],
        "envs_dirs": [*folders, _IMAGE_ENVIRONMENTS],
        "notify_outdated_conda": False,
        "auto_update_conda": False,
        # Many who ask the mirror for one large package wait until it is there.
        **({"remote_read_timeout_secs": 600.0} if settings.pip_index == PYPI_INDEX else {}),
        **({"custom_channels": custom} if custom else {}),
        **({"custom_multichannels": several} if several else {}),
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in lines.items())

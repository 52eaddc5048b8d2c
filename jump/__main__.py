"""``python -m jump``: settings from the site file, keys and token from files."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from commons.i18n import gettext_for
from commons.messages import Locale
from commons.site import SiteFileError, load_site
from jump.authority import Authority, read_key
from jump.hub import Hub
from jump.service import Service, Settings

SECRETS = "/run/labcommons"
PORT = 2222
LOOK = "20"  # seconds


def main() -> int:
    """Exit 1 with one line where something is missing."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    secrets = Path(os.environ.get("LABCOMMONS_SECRETS", SECRETS))
    try:
        site = load_site()
        if site.ssh is None:
            print("the site file has no section ssh", file=sys.stderr)
            return 1
        authority = Authority(read_key(secrets / "ssh-authority-key"))
        own = read_key(secrets / "ssh-host-key")
        token = (secrets / "ssh-token").read_text("ascii").strip()
    except (OSError, ValueError, SiteFileError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    url = (os.environ.get("LABCOMMONS_PUBLIC_URL") or site.site.public_url).rstrip("/")
    folder = Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data")) / "ssh"
    settings = Settings(
        host=site.ssh.host or urlsplit(url).hostname or "",
        proxy=os.environ.get("LABCOMMONS_PROXY_URL", "http://chp-front:8000"),
        page=f"{url}/services/labcommons/ssh",
        of_one=site.ssh.sessions,
        of_all=site.ssh.all_sessions,
        authority_file=folder / "authority.pub",
        alive=Path(os.environ.get("LABCOMMONS_ALIVE", "/tmp/labcommons-ssh.alive")),  # noqa: S108
        look=float(os.environ.get("LABCOMMONS_SSH_LOOK", LOOK)),
        locale=Locale(gettext_for(site.site.language)),
    )
    hub = Hub(os.environ.get("LABCOMMONS_HUB_API", "http://hub-control:8081/hub/api"), token)
    bind = os.environ.get("LABCOMMONS_SSH_LISTEN", f"0.0.0.0:{PORT}")
    address, _, port = bind.rpartition(":")
    asyncio.run(Service(settings, hub, authority, own).run(address, int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

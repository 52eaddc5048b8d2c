"""The environments as the console shows them, read from the store and made into plain data."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from hub_ext.site import words_in
from spawner.environments import catalog


def environments(session: Session, lang: str) -> dict[str, Any]:
    """The environments that can be started, with the newest version's contents."""
    return {
        "environments": [
            {
                "name": versions[0].name,
                "title": words_in(versions[0].words.get("title") or versions[0].name, lang),
                "description": words_in(versions[0].words.get("description") or "", lang),
                "version": versions[0].version,
                "versions": [entry.version for entry in versions],
                "python": versions[0].python,
                "main_packages": list(versions[0].main_packages),
                "package_count": len(versions[0].packages),
            }
            for versions in catalog.newest(session).values()
        ]
    }

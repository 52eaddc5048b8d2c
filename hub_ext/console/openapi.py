"""The console's REST API, described in OpenAPI 3.1."""

from __future__ import annotations

from typing import Any

from hub_ext.console.openapi_gpu import gpu_paths, quota_paths, reservation_paths
from hub_ext.console.openapi_parts import COUNT, TEXT, get, list_of, object_of

_ENVIRONMENT = object_of(
    name=TEXT,
    title=TEXT,
    description=TEXT,
    version=TEXT,
    versions=list_of(TEXT),
    python={"type": ["string", "null"]},
    main_packages=list_of(object_of(name=TEXT, version=TEXT)),
    package_count=COUNT,
)


def document(prefix: str) -> dict[str, Any]:
    """The description, for a console served under ``prefix``."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "LabCommons console", "version": "1"},
        "servers": [{"url": prefix.rstrip("/")}],
        "security": [{"token": []}],
        "paths": {
            **gpu_paths(),
            **quota_paths(),
            **reservation_paths(),
            "/api/v1/environments": get(
                "Environments that can be started", object_of(environments=list_of(_ENVIRONMENT))
            ),
            "/health": get(
                "Whether the console and its database work", object_of(status=TEXT), security=[]
            ),
        },
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "`token TOKEN`, with a token of the hub (Tokens, in the menu)",
                }
            }
        },
    }

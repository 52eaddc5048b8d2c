"""What the hub says of people and groups, asked with the console's own token."""

from __future__ import annotations

import json
import logging
from typing import Any
from urllib.parse import quote

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.web import HTTPError

from commons.scopes import Scope
from commons.web.handlers import HUB_TIMEOUT

log = logging.getLogger("labcommons.console")
_MOST = 8 * 2**20  # bytes of an answer


async def ask_hub(hub_auth: Any, path: str) -> Any:
    """An answer of the hub's API; None where there is no such thing. Raises HTTPError 502."""
    request = HTTPRequest(
        f"{hub_auth.api_url}/{path}",
        headers={"Authorization": f"token {hub_auth.api_token}"},
        connect_timeout=HUB_TIMEOUT,
        request_timeout=HUB_TIMEOUT,
        follow_redirects=False,
    )
    try:
        answer = await AsyncHTTPClient(max_body_size=_MOST).fetch(request, raise_error=False)
        if answer.code == 404:
            return None
        answer.rethrow()
        return json.loads(answer.body)
    except (OSError, ValueError, HTTPClientError) as error:
        log.warning("the hub was asked who is in a group: %s", error)
        raise HTTPError(502) from error


async def students(hub_auth: Any, course: Scope) -> set[str]:
    """Who has the lowest position in a course. Raises HTTPError 502."""
    group = course.row.positions[-1].groups[-1].replace("{name}", course.owner)
    model = await ask_hub(hub_auth, f"groups/{quote(group, safe='')}")
    return set(map(str, (model or {}).get("users") or ()))

"""Server extension: what makes a person's server light once it has started.

A server that was started before its owner comes asks itself what a browser asks first, so that
what is imported and read for that is there when forty of them come at once. The first notebook asks
for nbconvert's formats: a quarter of a second of imports in which the server does nothing else, for
an answer that the image has from its build. And garbage is collected from here on, but not looked
for among what was made at the start and stays.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.services.nbconvert.handlers import NbconvertRootHandler
from jupyter_server.utils import url_path_join
from labcommons_launch import THRESHOLDS
from tornado.httpclient import AsyncHTTPClient, HTTPError
from tornado.web import authenticated

FORMATS = Path(__file__).with_name("labcommons_formats.json")


def formats() -> dict[str, dict[str, str]]:
    """nbconvert's formats, as Jupyter Server tells them."""
    from nbconvert.exporters import base

    return {
        name: {"output_mimetype": base.get_exporter(name).output_mimetype}
        for name in base.get_export_names()
    }


class FormatsHandler(NbconvertRootHandler):
    """``/api/nbconvert`` from the file."""

    @authenticated
    @authorized
    async def get(self) -> None:
        try:
            answer = FORMATS.read_text("utf-8")
        except OSError:
            await super().get()
        else:
            self.finish(answer)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "labcommons_light"}]


def _load_jupyter_server_extension(app: Any) -> None:
    route = url_path_join(app.base_url, "/api/nbconvert")
    app.web_app.add_handlers(".*$", [(route, FormatsHandler)])


# JupyterLab's page, and what it asks for before a launcher is to be seen.
FIRST = (
    *("lab", "api/status", "api/me", "api/kernelspecs", "api/contents?content=1", "api/sessions"),
    *("api/kernels", "api/terminals", "api/nbconvert", "lab/api/settings", "lab/api/workspaces"),
    *("lab/api/translations", "lab/api/themes/@jupyterlab/theme-light-extension/index.css"),
)
ANSWER = 20.0  # seconds for each


async def _ask(app: Any, token: str) -> None:
    client = AsyncHTTPClient(force_instance=True)
    for path in FIRST:
        # It is no use of the server.
        mark = ("&" if "?" in path else "?") + "no_track_activity=1"
        address = f"http://127.0.0.1:{app.port}{url_path_join(app.base_url, path)}{mark}"
        try:
            await client.fetch(
                address,
                headers={"Authorization": f"token {token}"},
                request_timeout=ANSWER,
                raise_error=False,
            )
        except (OSError, HTTPError) as error:  # it would only have been sooner
            app.log.info("not asked ahead: %s: %s", path, error)
    client.close()
    app.log.info("asked ahead: what a browser asks first")


async def _start_jupyter_server_extension(app: Any) -> None:
    if os.environ.pop("LABCOMMONS_AHEAD", "") and (token := os.environ.get("JUPYTERHUB_API_TOKEN")):
        asking = asyncio.create_task(_ask(app, token))
        asking.add_done_callback(lambda _: _settle())
    else:
        _settle()


def _settle() -> None:
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


if __name__ == "__main__":
    FORMATS.write_text(json.dumps(formats()), "utf-8")

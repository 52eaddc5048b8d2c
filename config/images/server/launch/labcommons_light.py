"""Server extension: what makes a person's server light once it has started.

The first notebook asks for nbconvert's formats: a quarter of a second of imports in which
the server does nothing else, for an answer that the image has from its build. And garbage is
collected from here on, but not looked for among what was made at the start and stays.
"""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

from jupyter_server.auth.decorator import authorized
from jupyter_server.services.nbconvert.handlers import NbconvertRootHandler
from jupyter_server.utils import url_path_join
from labcommons_launch import THRESHOLDS
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


async def _start_jupyter_server_extension(_app: Any) -> None:
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


if __name__ == "__main__":
    FORMATS.write_text(json.dumps(formats()), "utf-8")

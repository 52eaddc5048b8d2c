"""The page Jobs: one's own, of administrators all; what each printed; the form for a new one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from commons.errors import BadRequest
from commons.i18n import N_
from commons.messages import Text
from commons.rights import Action, can
from commons.scopes import SITE
from commons.site import words_in
from commons.units import amount
from commons.web.pages import language_of
from commons.web.refused import Refused
from hub_ext.console.handlers import Page
from hub_ext.console.jobs_api import Asking
from jobs import records
from jobs.records import UNFINISHED
from kernels.job import NOTEBOOK
from spawner import options

FIELDS = ("command", "notebook", "environment", "size", "gpus", "hours", "folder", "array")

NOT_A_LINE = Text(
    "job_line_wrong", N_("The command cannot be read: a quotation mark has no other one.")
)
NOT_A_NOTEBOOK = Text("job_no_notebook", N_("“{path}” is no notebook: its name ends in .ipynb."))
NUMBERS_WRONG = Text("job_numbers_wrong", N_("GPUs and hours are whole numbers."))


class JobsPage(Asking, Page):
    """``jobs``: GET, and POST of the form."""

    async def get(self) -> None:
        """The list and the form."""
        sent = {"notebook": self.get_query_argument("notebook", "")[:500]}
        await self._show(sent)

    async def post(self) -> None:
        """Ask, and come back; what was wrong is said beside the form, which stays."""
        sent = {key: self.get_body_argument(key, "").strip()[:33_000] for key in FIELDS}
        sent["preemptible"] = self.get_body_argument("preemptible", "")
        try:
            await self.submit(self._wanted(sent))
        except Refused as error:
            if error.status_code in (403, 404):
                raise
            await self._show(sent, error.sentence, error.status_code)
            return
        self.redirect(f"{self.hub_auth.base_url}jobs")

    def _wanted(self, sent: dict[str, str]) -> dict[str, Any]:
        """What a filled form asks for. Raises Refused."""
        wanted: dict[str, Any] = {
            key: sent[key] for key in ("environment", "size", "folder", "array") if sent[key]
        }
        try:
            wanted["command"] = shlex.split(sent["command"])
        except ValueError as error:
            raise Refused(BadRequest(NOT_A_LINE()), self.reading) from error
        if path := sent["notebook"]:
            if not path.endswith(".ipynb"):
                raise Refused(BadRequest(NOT_A_NOTEBOOK(path=path[:200])), self.reading)
            folder, _, name = path.removeprefix("~/").rpartition("/")
            wanted |= {"command": [NOTEBOOK, name], "folder": folder}
        for key, name, factor in (("gpus", "gpus", 1), ("hours", "time_limit", 60)):
            if sent[key] and not sent[key].isdecimal():
                raise Refused(BadRequest(NUMBERS_WRONG()), self.reading)
            if sent[key]:
                wanted[name] = int(sent[key][:9]) * factor
        return wanted | {"preemptible": bool(sent["preemptible"])}

    async def _show(self, sent: dict[str, str], problem: str = "", status: int = 200) -> None:
        viewer, reading, lang = self.viewer, self.reading, language_of(self)
        everything = bool(can(viewer, Action.ADMINISTER, SITE))

        def work(session: Session) -> dict[str, Any]:
            rows = records.mine(session, None if everything else viewer.name)
            entries = options.offered(session, viewer, packages=False)
            return {
                "rows": records.show_all(session, rows, reading),
                "environments": {
                    name: words_in(found[0].words.get("title") or name, lang)
                    for name, found in entries.items()
                },
            }

        sizes = {
            name: words_in(size.title, lang) if size.title else name
            for name, size in options.sizes_for(viewer, self.site).items()
        }
        self.set_status(status)
        self.render_page(
            "jobs.html",
            **await self.read(work),
            everything=everything,
            bytes_words=amount,
            unfinished=[str(one) for one in UNFINISHED],
            sizes=sizes,
            sent=sent,
            problem=problem,
        )


class JobPage(Asking, Page):
    """``jobs/ID``: one, with the end of what it printed."""

    def initialize(self, data: Path, **shared: Any) -> None:  # type: ignore[override]
        """Called by tornado with what ``make_app`` gives."""
        super().initialize(**shared)
        self.data = data

    async def get(self, job: str) -> None:
        """For its owner and administrators."""
        shown, text, _ = await self.log(self.data, job, None)
        self.render_page(
            "job.html",
            row=shown,
            log=text,
            unfinished=[str(one) for one in UNFINISHED],
            bytes_words=amount,
        )

"""Pages of quotas, for administrators: what is set, the form of one subject, the document."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session

from hub_ext.console import quota_form
from hub_ext.console.handlers import Page, Refused
from hub_ext.i18n import N_
from spawner.gpu import board, quotas
from spawner.gpu.problems import ProblemsError
from spawner.gpu.quota_document import check_names, check_spec, to_yaml


class Quotas(Page):
    """What is set, who else could have something set, and the last changes."""

    async def get(self) -> None:
        """The list."""
        self.need_admin()
        known = self.site.directory

        def work(session: Session) -> dict[str, Any]:
            return {
                "specs": quotas.specs(session),
                "people": sorted(quotas.people(session)),
                "history": [
                    {
                        "at": board.iso(row.at),
                        "by": row.by,
                        "subject": row.subject,
                        "changes": quotas.diff(
                            {row.subject: row.before or {}}, {row.subject: row.after or {}}
                        ),
                    }
                    for row in quotas.history(session, limit=12)
                ],
            }

        found = await self.read(work)
        possible = [
            "settings",
            "default",
            *(f"group:{name}" for name in known.teams),
            *(f"course:{name}" for name in known.courses),
        ]
        self.render_page(
            "quotas.html",
            unset=[subject for subject in possible if subject not in found["specs"]],
            saved=self.get_query_argument("saved", ""),
            **found,
        )


class Edit(Page):
    """The form of one subject: ``?subject=group:vision``."""

    async def get(self) -> None:
        """The form, filled with what is set."""
        self.need_admin()
        spec = await self.read(lambda session: quotas.specs(session).get(self.subject(), {}))
        await self._show(spec, quotas.tag(spec), [])

    async def post(self) -> None:
        """Save, and come back to the list; what was wrong is said beside the field."""
        self.need_admin()
        subject, by, site = self.subject(), self.viewer.name, self.site
        tag = self.get_body_argument("tag", "")
        models = await self.read(quotas.models)
        current = await self.read(lambda session: quotas.specs(session).get(subject, {}))
        form = quota_form.sections(subject, models, current)
        sent = quota_form.filled_in(form, lambda name: self.get_body_argument(name, ""))

        def work(session: Session) -> tuple[quotas.Change, ...]:
            spec = check_spec(subject, sent)
            if spec:
                check_names({subject: spec}, site, quotas.people(session), quotas.models(session))
            quotas.lock(session)
            if quotas.tag(quotas.specs(session).get(subject)) != tag:
                sentence = self._(
                    N_(
                        "Somebody else has changed these limits meanwhile. Look at them again; "
                        "what you filled in is still below."
                    )
                )
                raise Refused(409, "changed_meanwhile", sentence)
            return quotas.apply(session, {subject: spec}, by)

        try:
            changes = await self.change(work)
        except Refused as error:
            problems = [
                (one["path"].removeprefix(f"{subject}.").removeprefix(subject), one["message"])
                for one in error.details.get("problems", ())
            ]
            fresh = await self.read(lambda s: quotas.tag(quotas.specs(s).get(subject)))
            await self._show(sent, fresh, problems or [("", error.sentence)], error.status_code)
            return
        if changes:
            self.record("quota-change", subject=subject, changes=[str(one) for one in changes])
        self.redirect(f"{self.hub_auth.base_url}quotas?saved={quote(subject)}")

    def subject(self) -> str:
        """The subject of the address. Raises Refused for what is none."""
        subject = self.get_query_argument("subject", "")
        try:
            check_spec(subject, {})
        except ProblemsError as error:
            raise Refused(400, error.code, error.problems[0].sentence(self._)) from error
        return subject

    async def _show(
        self, spec: dict[str, Any], tag: str, problems: list[tuple[str, str]], status: int = 200
    ) -> None:
        subject = self.subject()
        models = await self.read(quotas.models)
        sections = quota_form.sections(subject, models, spec)
        names = {field.name for section in sections for field in section.fields}
        self.set_status(status)
        self.render_page(
            "quota_form.html",
            subject=subject,
            sections=sections,
            spec=spec,
            tag=tag,
            problems=problems,
            wrong={path: message for path, message in problems if path in names},
        )


class Export(Page):
    """``quotas.yaml``: what is set, as the document that ``labcommons quota apply`` takes."""

    async def get(self) -> None:
        """Download it."""
        self.need_admin()
        found = await self.read(quotas.specs)
        self.set_header("Content-Type", "application/yaml; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="quotas.yaml"')
        self.finish(to_yaml(found))

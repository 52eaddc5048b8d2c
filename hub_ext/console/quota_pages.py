"""Pages of quotas, for administrators: what is set, the form of one subject, the document."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.scopes import SITE_SUBJECTS, groups_of_site, own_account
from commons.web.refused import Refused
from hub_ext.console import quota_form
from hub_ext.console.handlers import Page
from spawner.gpu import views, what_if
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import check_names, check_spec, to_yaml
from spawner.gpu.quotas.problems import ProblemsError

LIMITS_CHANGED = Text(
    "limits_changed",
    N_(
        "Somebody else has changed these limits meanwhile. Look at them again; what you filled "
        "in is still below."
    ),
)


class Quotas(Page):
    """What is set, who else could have something set, and the last changes."""

    async def get(self) -> None:
        """The list."""
        self.need_admin()

        def work(session: Session) -> dict[str, Any]:
            return {
                "specs": quota_store.specs(session),
                "people": sorted(quota_store.people(session)),
                "history": [
                    {
                        "at": views.iso(row.at),
                        "by": row.by,
                        "subject": row.subject,
                        "changes": quota_store.diff(
                            {row.subject: row.before or {}}, {row.subject: row.after or {}}
                        ),
                    }
                    for row in quota_store.history(session, limit=12)
                ],
            }

        found = await self.read(work)
        groups = [scope.account for scope in groups_of_site(self.site) if scope.account]
        possible = [*SITE_SUBJECTS, *groups]
        self.render_page(
            "quotas.html",
            unset=[subject for subject in possible if subject not in found["specs"]],
            own_prefix=own_account(""),
            saved=self.get_query_argument("saved", ""),
            **found,
        )


class Edit(Page):
    """The form of one subject: ``?subject=group:vision``."""

    async def get(self) -> None:
        """The form, filled with what is set."""
        self.need_admin()
        spec = await self.read(lambda session: quota_store.specs(session).get(self.subject(), {}))
        await self._show(spec, quota_store.tag(spec), [])

    async def post(self) -> None:
        """Save, and come back to the list; what was wrong is said beside the field."""
        self.need_admin()
        subject, by, site = self.subject(), self.viewer.name, self.site
        tag = self.get_body_argument("tag", "")
        models = await self.read(quota_store.models)
        current = await self.read(lambda session: quota_store.specs(session).get(subject, {}))
        form = quota_form.sections(subject, models, current)
        sent = quota_form.filled_in(form, lambda name: self.get_body_argument(name, ""))

        looks = self.get_body_argument("do", "") == "look"

        def work(session: Session) -> tuple[quota_store.Change, ...]:
            spec = check_spec(subject, sent)
            if spec:
                people, models = quota_store.people(session), quota_store.models(session)
                check_names({subject: spec}, site, people, models)
            quota_store.lock(session)
            if quota_store.tag(quota_store.specs(session).get(subject)) != tag:
                raise Refused(NotAvailable(LIMITS_CHANGED()), self._)
            return quota_store.apply(session, {subject: spec}, by)

        def look(session: Session) -> tuple[tuple[quota_store.Change, ...], dict[str, Any]]:
            old, spec = quota_store.specs(session), check_spec(subject, sent)
            if spec:
                check_names({subject: spec}, site, quota_store.people(session), models)
            effects = what_if.look(session, {**old, subject: spec}, time.time())
            return quota_store.diff(old, {subject: spec}), effects.as_json()

        try:
            if looks:
                changes, effects = await self.read(look)
                await self._show(sent, tag, [], seen={"changes": changes, **effects})
                return
            changes = await self.change(work)
        except Refused as error:
            problems = [
                (one["path"].removeprefix(f"{subject}.").removeprefix(subject), one["message"])
                for one in error.details.get("problems", ())
            ]
            fresh = await self.read(lambda s: quota_store.tag(quota_store.specs(s).get(subject)))
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
            raise Refused(error, self._) from error
        return subject

    async def _show(
        self,
        spec: dict[str, Any],
        tag: str,
        problems: list[tuple[str, str]],
        status: int = 200,
        seen: dict[str, Any] | None = None,
    ) -> None:
        subject = self.subject()
        models = await self.read(quota_store.models)
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
            seen=seen,
            wrong={path: message for path, message in problems if path in names},
        )


class Export(Page):
    """``quotas.yaml``: what is set, as the document that ``labcommons quota apply`` takes."""

    async def get(self) -> None:
        """Download it."""
        self.need_admin()
        found = await self.read(quota_store.specs)
        self.set_header("Content-Type", "application/yaml; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="quotas.yaml"')
        self.finish(to_yaml(found))

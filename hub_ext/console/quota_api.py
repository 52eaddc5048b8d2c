"""REST about quotas: reading them, and changing them as an administrator."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy.orm import Session

from commons.errors import NotAvailable
from commons.i18n import N_
from commons.messages import Text
from commons.rights import Action, can
from commons.scopes import SITE, Scope, of_subject
from commons.web.operations import Part, Route, operation
from commons.web.refused import Refused
from hub_ext.console import quota_schemas as schemas
from hub_ext.console.handlers import Api
from spawner.gpu import views, what_if
from spawner.gpu.quotas import quota_store
from spawner.gpu.quotas.document import (
    Specs,
    check_document,
    check_names,
    check_spec,
    endless,
    read_document,
    to_document,
)
from spawner.gpu.quotas.problems import Problem

_IF_MATCH = {"If-Match": "the ETag of a GET: 412 where somebody has changed it since"}
_CHANGED = {412: "somebody has changed it since"}


def _reading(subject: str) -> tuple[Action, Scope]:
    """What is asked for by who reads what is set for a subject."""
    scope = of_subject(subject)
    return (Action.READ_QUOTA, scope) if scope else (Action.ADMINISTER, SITE)


CHANGED_MEANWHILE = Text(
    "changed_meanwhile",
    N_("Somebody else has changed this meanwhile. Read it again, then change it."),
)


class QuotasApi(Api):
    """``GET api/v1/quotas``."""

    @operation("What is set: all for administrators, one's own for others", schemas.Quotas)
    async def get(self) -> None:
        """What is set, by subject, and as a document: all for administrators, one's own for
        others.
        """
        viewer, found = self.viewer, await self.read(quota_store.specs)
        seen = {one: spec for one, spec in found.items() if can(viewer, *_reading(one))}
        self.reply({"quotas": seen, "document": to_document(seen)})


class QuotaApi(Api):
    """``api/v1/quotas/SUBJECT``: GET, PUT, DELETE. ``If-Match`` takes the ``ETag`` of a GET, so
    that nobody's change is overwritten unseen.
    """

    _tag: str | None = None

    @operation("What is set for one subject", schemas.SubjectQuota)
    async def get(self, subject: str) -> None:
        """What is set for one subject; an empty mapping where nothing is."""
        self.need(*_reading(subject))

        def work(session: Session) -> dict[str, Any]:
            check_spec(subject, {})
            return quota_store.specs(session).get(subject, {})

        spec = await self.read(work)
        self._answer(subject, spec, ())

    @operation(
        "Make it exactly this",
        schemas.SubjectQuota,
        body=schemas.Quota,
        headers=_IF_MATCH,
        refusals=_CHANGED,
        admins=True,
    )
    async def put(self, subject: str, body: dict[str, Any]) -> None:
        """What is wrong with it, ``check_spec`` says, by subject."""
        await self._set(subject, body)

    @operation(
        "Remove all of it", schemas.SubjectQuota, headers=_IF_MATCH, refusals=_CHANGED, admins=True
    )
    async def delete(self, subject: str) -> None:
        """Remove all that is said of it."""
        await self._set(subject, {})

    async def _set(self, subject: str, sent: dict[str, Any]) -> None:
        by, site, match = self.viewer.name, self.site, self.request.headers.get("If-Match")

        def work(session: Session) -> tuple[dict[str, Any], tuple[quota_store.Change, ...]]:
            spec = check_spec(subject, sent)
            if spec:
                people, models = quota_store.people(session), quota_store.models(session)
                check_names({subject: spec}, site, people, models)
            quota_store.lock(session)
            current = quota_store.tag(quota_store.specs(session).get(subject))
            if match not in (None, "*") and match.strip('"') != current:
                raise Refused(NotAvailable(CHANGED_MEANWHILE()), self._, 412)
            return spec, quota_store.apply(session, {subject: spec}, by)

        spec, changes = await self.change(work)
        if changes:
            self.record("quota-change", subject=subject, changes=[str(one) for one in changes])
        self._answer(subject, spec, changes)

    def compute_etag(self) -> str | None:
        """Ours says what the quota is, not how the answer is written."""
        return self._tag

    def _answer(
        self, subject: str, spec: dict[str, Any], changes: tuple[quota_store.Change, ...]
    ) -> None:
        self._tag = f'"{quota_store.tag(spec)}"'
        self.set_header("ETag", self._tag)
        self.reply({"subject": subject, "quota": spec, "changes": [vars(one) for one in changes]})


class ApplyApi(Api):
    """``POST api/v1/quotas/apply``, as ``labcommons quota apply``."""

    @operation("Apply a quotas document", schemas.Applied, body=schemas.Apply, admins=True)
    async def post(self, body: schemas.Apply) -> None:
        """Apply ``document`` (the mapping, or its text in YAML); ``dry_run`` only says what it
        would change; ``prune`` removes what it does not name; ``strict`` refuses unknown people.
        """
        dry_run, prune, strict = body.dry_run, body.prune, body.strict
        document, by, site = body.document, self.viewer.name, self.site

        def work(
            session: Session,
        ) -> tuple[tuple[quota_store.Change, ...], tuple[Problem, ...], what_if.Effects | None]:
            specs: Specs = (
                read_document(document) if isinstance(document, str) else check_document(document)
            )
            warnings = check_names(
                specs, site, quota_store.people(session), quota_store.models(session), strict
            )
            old = quota_store.specs(session)
            new = specs if prune else {**old, **specs}
            warnings += endless(new)
            if dry_run:
                effects = what_if.look(session, new, time.time())
                return quota_store.diff(old, specs, prune), warnings, effects
            return quota_store.apply(session, specs, by, prune), warnings, None

        changes, warnings, effects = await (self.read if dry_run else self.change)(work)
        if changes and not dry_run:
            self.record("quota-change", changes=[f"{one.subject} {one}" for one in changes])
        self.reply(
            {
                "applied": not dry_run,
                "effects": effects and effects.as_json(),
                "changes": [vars(one) for one in changes],
                "warnings": [one.as_json(self.reading) for one in warnings],
            }
        )


class QuotaHistoryApi(Api):
    """``GET api/v1/quotas/history``."""

    @operation("Who changed what", schemas.History, query=schemas.OfSubject, admins=True)
    async def get(self, query: schemas.OfSubject) -> None:
        """The last changes, newest first."""
        rows = await self.read(lambda session: quota_store.history(session, query.subject))
        self.reply(
            {
                "changes": [
                    {
                        "at": views.iso(row.at),
                        "by": row.by,
                        "subject": row.subject,
                        "before": row.before,
                        "after": row.after,
                    }
                    for row in rows
                ]
            }
        )


_SUBJECT = {"subject": Part("default, settings, user:NAME, group:NAME or course:NAME")}
ROUTES = (
    Route("/api/v1/quotas", QuotasApi),
    Route("/api/v1/quotas/apply", ApplyApi),
    Route("/api/v1/quotas/history", QuotaHistoryApi),
    Route("/api/v1/quotas/{subject}", QuotaApi, _SUBJECT),
)

"""REST about quotas: reading them, and changing them as an administrator."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from hub_ext.console.handlers import Api, Refused
from hub_ext.i18n import N_
from spawner.gpu import board, quotas
from spawner.gpu.quota_document import (
    Specs,
    check_document,
    check_names,
    check_spec,
    keys_of,
    read_document,
    to_document,
)

_KEYS = dict.fromkeys((*keys_of("settings"), *keys_of("group")))


class QuotasApi(Api):
    """``GET api/v1/quotas``."""

    async def get(self) -> None:
        """What is set, by subject, and as a document: all for administrators, one's own for
        others.
        """
        found = await self.read(quotas.specs)
        seen = {one: spec for one, spec in found.items() if self.viewer.may_read(one)}
        self.reply({"quotas": seen, "document": to_document(seen)})


class QuotaApi(Api):
    """``api/v1/quotas/SUBJECT``: GET, PUT, DELETE. ``If-Match`` takes the ``ETag`` of a GET, so
    that nobody's change is overwritten unseen.
    """

    _tag: str | None = None

    async def get(self, subject: str) -> None:
        """What is set for one subject; an empty mapping where nothing is."""
        if not self.viewer.may_read(subject):
            self.need_admin()

        def work(session: Session) -> dict[str, Any]:
            check_spec(subject, {})
            return quotas.specs(session).get(subject, {})

        spec = await self.read(work)
        self._answer(subject, spec, ())

    async def put(self, subject: str) -> None:
        """Make it exactly this mapping."""
        self.need_admin()
        sent = self.body(**dict.fromkeys(_KEYS, object))
        await self._set(subject, {k: v for k, v in sent.items() if v is not None})

    async def delete(self, subject: str) -> None:
        """Remove all that is said of it."""
        self.need_admin()
        await self._set(subject, {})

    async def _set(self, subject: str, sent: dict[str, Any]) -> None:
        by, site, match = self.viewer.name, self.site, self.request.headers.get("If-Match")

        def work(session: Session) -> tuple[dict[str, Any], tuple[quotas.Change, ...]]:
            spec = check_spec(subject, sent)
            if spec:
                check_names({subject: spec}, site, quotas.people(session), quotas.models(session))
            quotas.lock(session)
            current = quotas.tag(quotas.specs(session).get(subject))
            if match not in (None, "*") and match.strip('"') != current:
                sentence = self._(
                    N_("Somebody else has changed this meanwhile. Read it again, then change it.")
                )
                raise Refused(412, "changed_meanwhile", sentence)
            return spec, quotas.apply(session, {subject: spec}, by)

        spec, changes = await self.change(work)
        if changes:
            self.record("quota-change", subject=subject, changes=[str(one) for one in changes])
        self._answer(subject, spec, changes)

    def compute_etag(self) -> str | None:
        """Ours says what the quota is, not how the answer is written."""
        return self._tag

    def _answer(
        self, subject: str, spec: dict[str, Any], changes: tuple[quotas.Change, ...]
    ) -> None:
        self._tag = f'"{quotas.tag(spec)}"'
        self.set_header("ETag", self._tag)
        self.reply({"subject": subject, "quota": spec, "changes": [vars(one) for one in changes]})


class ApplyApi(Api):
    """``POST api/v1/quotas/apply``, as ``labcommons quota apply``."""

    async def post(self) -> None:
        """Apply ``document`` (the mapping, or its text in YAML); ``dry_run`` only says what it
        would change; ``prune`` removes what it does not name; ``strict`` refuses unknown people.
        """
        self.need_admin()
        body = self.body(document=object, dry_run=bool, prune=bool, strict=bool)
        dry_run, prune, strict = (bool(body[key]) for key in ("dry_run", "prune", "strict"))
        document, by, site = body["document"], self.viewer.name, self.site

        def work(session: Session) -> tuple[tuple[quotas.Change, ...], tuple[str, ...]]:
            specs: Specs = (
                read_document(document) if isinstance(document, str) else check_document(document)
            )
            warnings = check_names(
                specs, site, quotas.people(session), quotas.models(session), strict
            )
            if dry_run:
                return quotas.diff(quotas.specs(session), specs, prune), warnings
            return quotas.apply(session, specs, by, prune), warnings

        changes, warnings = await (self.read if dry_run else self.change)(work)
        if changes and not dry_run:
            self.record("quota-change", changes=[f"{one.subject} {one}" for one in changes])
        self.reply(
            {
                "applied": not dry_run,
                "changes": [vars(one) for one in changes],
                "warnings": list(warnings),
            }
        )


class QuotaHistoryApi(Api):
    """``GET api/v1/quotas/history``, for administrators."""

    async def get(self) -> None:
        """The last changes, newest first; ``?subject=`` of one subject."""
        self.need_admin()
        subject = self.get_query_argument("subject", None)
        rows = await self.read(lambda session: quotas.history(session, subject))
        self.reply(
            {
                "changes": [
                    {
                        "at": board.iso(row.at),
                        "by": row.by,
                        "subject": row.subject,
                        "before": row.before,
                        "after": row.after,
                    }
                    for row in rows
                ]
            }
        )

"""Kind: the console's pages are in one language, and every time on them is in one zone."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy.orm import Session
from tornado.web import Application

from commons.audit import ACTIONS, Chain, make_event
from commons.i18n import LANGUAGES
from commons.site import Site
from commons.store.models import ExamSitting, utcnow
from courses.document import check_course, to_yaml
from hub_ext.console.app import PREFIX, make_app
from hub_ext.console.help_pages import ROLES
from jobs import records
from jobs.asked import parse
from jobs.records import State
from tests.rig.one_language import names_in, not_in_zone, of_page, times

from . import conftest
from .conftest import HOSTILE, Console
from .test_handin_pages import handed_in
from .test_openapi import COURSE, QUOTAS, RESERVATION, WARM, lived_in

__all__ = ["lived_in"]
# By the addresses of the application: what is asked for, and by whom before an @.
VISITS: dict[str, tuple[str, ...]] = {
    "": ("alice@", "carol@"),
    "today": ("carol@today", "bob@today", "alice@today"),
    "servers": ("carol@servers", "bob@servers?q=x", "alice@servers"),
    "people": ("carol@people", "dan@people", "alice@people?q=x"),
    "people/([^/]{1,255})": (
        "carol@people/alice",
        "carol@people/zoe",
        "bob@people/alice",
        "alice@people/bob",
    ),
    "quotas": ("carol@quotas", "alice@quotas"),
    "quotas/edit": tuple(
        f"carol@quotas/edit?subject={one}" for one in ("settings", "default", "group:vision", "x")
    ),
    "reservations": ("carol@reservations", "alice@reservations"),
    "ahead": ("carol@ahead", "dan@ahead", "alice@ahead"),
    "courses": ("alice@courses", "dan@courses", "carol@courses"),
    "courses/([a-z0-9._-]{1,64})": (
        "dan@courses/ml101",
        "carol@courses/ml101",
        "alice@courses/ml101",
    ),
    "shared": ("alice@shared", "dan@shared", "carol@shared"),
    "courses/([a-z0-9._-]{1,64})/handins": (
        "dan@courses/ml101/handins",
        "carol@courses/ml101/handins",
        "alice@courses/ml101/handins",
    ),
    "courses/([a-z0-9._-]{1,64})/handins/([a-z0-9._-]{1,64})": (
        "dan@courses/ml101/handins/hw1",
        "dan@courses/ml101/handins/none",
        "alice@courses/ml101/handins/hw1",
    ),
    "courses/([a-z0-9._-]{1,64})/handed-in/([0-9a-f]{12})": (
        "dan@courses/ml101/handed-in/0123456789ab",
        "dan@courses/ml101/handed-in/ba9876543210",
        "alice@courses/ml101/handed-in/0123456789ab",
    ),
    "jobs": ("alice@jobs", "bob@jobs", "carol@jobs"),
    "jobs/([0-9_]{1,30})": ("alice@jobs/1", "alice@jobs/2", "bob@jobs/1"),
    "inbox": ("alice@inbox", "bob@inbox"),
    "ssh": ("alice@ssh", "carol@ssh"),
    "teams": ("bob@teams", "carol@teams", "alice@teams"),
    "teams/([a-z0-9._-]{1,64})": ("bob@teams/vision", "carol@teams/x", "alice@teams/vision"),
    "usage": ("alice@usage", "carol@usage?by=team&of=cpu", "bob@usage?person=alice&from=x"),
    "usage/report": (
        "carol@usage/report",
        "carol@usage/report?month=2026-11",
        "bob@usage/report?month=x",
    ),
    "channels": ("alice@channels", "carol@channels"),
    "channels/([a-z0-9._-]{1,80})": (
        "bob@channels/team-vision",
        "alice@channels/team-vision",
        "alice@channels/team-vision?name=zzz",
        "alice@channels/course-ml101",
    ),
    "disk": ("alice@disk", "carol@disk"),
    "files": ("alice@files",),
    "doctor": ("carol@doctor", "alice@doctor"),
    "vulnerable": ("carol@vulnerable", "alice@vulnerable"),
    "mirror": ("carol@mirror", "alice@mirror"),
    "broadcasts": ("carol@broadcasts", "alice@broadcasts"),
    "maintenance": ("carol@maintenance", "alice@maintenance"),
    "audit": ("carol@audit", "carol@audit?person=nobody&before=x", "alice@audit"),
    "environments": ("alice@environments", "carol@environments", "bob@environments"),
    "help(?:/([a-z]+))?": ("alice@help/none", *(f"alice@help/{role}" for role in ROLES)),
    "oauth_callback": ("alice@oauth_callback?code=x",),
}
# Of the browser here: a time in UTC is another day's in it.
ZONE = ZoneInfo("Pacific/Kiritimati")
NO_PAGES = {
    r"courses/([a-z0-9._-]{1,64})/course\.yaml",
    r"courses/([a-z0-9._-]{1,64})/end",
    r"courses/([a-z0-9._-]{1,64})/archives/([0-9a-f]{12})",
    r"courses/([a-z0-9._-]{1,64})/handins/([a-z0-9._-]{1,64})/files\.zip",
    r"courses/([a-z0-9._-]{1,64})/handins/([a-z0-9._-]{1,64})/marks\.csv",
    r"courses/([a-z0-9._-]{1,64})/handins/([a-z0-9._-]{1,64})/feedback\.zip",
    r"courses/([a-z0-9._-]{1,64})/handed-in/([0-9a-f]{12})/files\.zip",
    r"courses/([a-z0-9._-]{1,64})/handed-in/([0-9a-f]{12})/receipt\.json",
    r"quotas\.yaml",
    r"audit\.(csv|jsonl)",
    r"usage\.csv",
    "files/download",
    # What conda reads; read as a page, it is a line.
    (
        r"channels/(?:t/(?P<secret>[A-Za-z0-9_.~-]{1,300})/)?(?P<channel>[a-z0-9._-]{1,80})"
        r"/(?P<subdir>[a-z0-9-]{1,40})/(?P<file>[^/]{1,300}|shards/[^/]{1,100})"
    ),
}
NAMES = names_in(
    HOSTILE, QUOTAS, RESERVATION, conftest.PEOPLE, conftest.GROUPS, "Lab Data RTX train timed more",
    "py313-data py numpy conda-forge ab12cd34 GPU-0 labcommons quota apply team-vision site local",
    # Of the quotas document: whom it may name, and the strategies. Of the forms: examples.
    "group:NAME course:NAME user:NAME default settings backfill BestEffortFIFO StrictFIFO",
    "torch team-vision cowsay speech ml101 small lesson",
    # Programs, files and packages that the guides and the page of environments speak of.
    "ipykernel r-irkernel conda-lock pixi pixi.toml pixi.lock beside list Prometheus Grafana Excel",
    "CSV Moodle OneRoster git zip",
    "bin/labcommons doctor hub ML course.yaml granted", to_yaml(check_course(COURSE)),
    "project site.subdomains",
    "conda.anaconda.org mirror COMPOSE_PROFILES .env make up fill check docs/mirror.md ms",
    "VS Code PyCharm TensorBoard Remote-SSH scp sftp rsync Ed25519 ECDSA RSA known_hosts",
    "~/.ssh/id_ed25519.pub pub ssh ssh/config alice.main alice.NAME carol.main carol.NAME",
    "py313-data:1 alice/timed bob/train other zoe",
    "labcommons server list json stop user block",
    "labcommons run gpus time python train.py LABCOMMONS_TASK true",
    "OSV data/advisories environments.scan.advisories Python",
    "UTF-8 UTF Windows Matplotlib seaborn Asia/Shanghai Pacific/Kiritimati",
    "mamba rattler rattler-build condarc ~/.condarc conda bz2 tool channels TOKEN REST noarch",
    "GB tar tar.bz2 package build FOLDER labcommons https://lab.localhost:8443/services/labcommons/channels",
    "https://lab.localhost:8443/services/labcommons/channels/team-vision site course-ml101",
    "SHA-256 none MB UTF-8 UTF Windows Matplotlib seaborn Asia/Shanghai Pacific/Kiritimati",
)  # fmt: skip


EXAM = {
    "name": "midterm", "title": {"en": "lesson", "zh": "lesson"}, "day": "2031-01-20",
    "starts": "10:00", "duration": "90m", "environment": "py313-data:20261121-ab12cd34",
    "size": "small",
}  # fmt: skip


def sat(console: Console) -> None:
    """Some are in the exam, and some have ended it."""

    def work(session: Session) -> None:
        for name, ended, collected in (("s01", 0, 0), ("s02", 1, 0), ("s03", 1, 1)):
            session.add(
                ExamSitting(
                    course="ml101", exam="midterm", username=name, options={}, ends_at=utcnow(),
                    ended_at=utcnow() if ended else None,
                    collected_at=utcnow() if collected else None,
                )
            )  # fmt: skip

    console.store.transact(work)


def worked(console: Console) -> None:
    """Jobs of alice's: one that failed, and others that wait."""

    def work(session: Session) -> None:
        rows = records.submit(session, parse({"command": ["true"], "gpus": 1}), "alice")
        records.begin(session, rows[0].id)
        records.end(session, rows[0].id, State.FAILED, records.EXITED(code=3), 3, 2**20)
        waits = parse({"command": ["true"], "after": ["1"], "preemptible": True})
        for row in records.submit(session, waits, "alice"):
            records.wait(session, {row.id: records.WAITS_AFTER(jobs=["1"])})

    console.store.transact(work)


def pages(app: Application) -> set[str]:
    """The addresses at which an application has pages."""
    found = set()
    for rule in app.wildcard_router.rules:
        pattern = rule.matcher.regex.pattern.removesuffix("$").removeprefix(re.escape(PREFIX))
        kind = rule.target
        if not any(name in str(kind.__mro__) for name in (".Api'", ".Static'")):
            found.add(pattern)
    return found


def test_every_page_of_the_console_is_visited(console: Console, lab_site: Site) -> None:
    class Auth:
        base_url = PREFIX

    assert pages(make_app(lab_site, console.store, Auth())) == VISITS.keys() | NO_PAGES  # type: ignore[arg-type]


@pytest.mark.parametrize("lang", LANGUAGES)
async def test_every_page_of_the_console_is_in_one_language(lived_in: Console, lang: str) -> None:
    cookie = f"labcommons-lang={lang}; labcommons-tz={ZONE.key}"
    body = RESERVATION | {"timezone": "Asia/Shanghai"}
    made = await lived_in.send("POST", "api/v1/reservations", "carol-token", body)
    assert made.code == 201, made.body
    made = await lived_in.send("POST", "api/v1/warm-starts", "carol-token", WARM)
    assert made.code == 201, made.body
    changed = {"title": {"en": "ML"}, "timezone": "Asia/Shanghai", "exams": [EXAM]}
    sent = {"document": COURSE | changed}
    made = await lived_in.send("PUT", "api/v1/courses/ml101", "carol-token", sent)
    assert made.code == 200, made.body
    sat(lived_in)
    shared, options = "api/v1/shared-servers/course-ml101/project", {"options": {"size": "small"}}
    made = await lived_in.send("PUT", shared, "carol-token", options)
    assert made.code == 200, made.body
    handed_in(lived_in)
    Chain(lived_in.data / "audit" / "hub", "hub").append(
        [
            make_event(one, "failure", user="alice", reason="wrong_credentials", details={"a": 1})
            for one in ACTIONS
        ]
    )
    worked(lived_in)
    wrong, told = {}, 0
    for path in (*(path for paths in VISITS.values() for path in paths), "alice@none"):
        who, _, rest = path.partition("@")
        answer = await lived_in.get(rest, f"{who}-token", Cookie=cookie)
        page = answer.body.decode()
        found = of_page(page, lang, NAMES)
        # Whose browser says its zone is told times without one, and in no other.
        found += not_in_zone(page, ZONE)
        told += len(times(page))
        if found:
            wrong[path, answer.code] = found
    assert wrong == {}
    assert told

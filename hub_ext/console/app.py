"""``labcommons console``: pages and REST API about GPUs, leases and environments."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Any

import click
from jupyterhub.services.auth import HubOAuth
from tornado.web import Application

from commons.audit import AuditTrail, Chain
from commons.audit.trail import folder
from commons.broadcasts import Board
from commons.readers import Readers
from commons.site import Site, load_site
from commons.store import Store
from commons.web import handlers, openapi
from commons.web.guard import XSRF_COOKIE, guarded
from commons.web.handlers import MAX_BODY
from commons.web.operations import Route
from commons.web.pages import STATIC, service_templates
from commons.web.service import hub_auth, serve
from hub_ext.console import (
    audit_api,
    audit_pages,
    backup_pages,
    broadcast_api,
    broadcast_pages,
    channel_api,
    channel_files,
    channel_pages,
    course_api,
    course_end,
    course_pages,
    disk_pages,
    doctor_pages,
    environments,
    gpu_api,
    gpu_pages,
    grading_api,
    handin_api,
    handin_downloads,
    handin_pages,
    help_pages,
    inbox_api,
    inbox_pages,
    jobs_api,
    jobs_pages,
    maintenance_api,
    material_api,
    metrics,
    mirror_pages,
    notice_api,
    people_api,
    people_pages,
    quota_api,
    quota_pages,
    reservation_api,
    reservation_pages,
    server_api,
    server_pages,
    shared_api,
    shared_pages,
    ssh_pages,
    team_pages,
    today,
    usage_pages,
    vulnerable_pages,
    warm_api,
    warm_pages,
)
from hub_ext.console.live import Live
from spawner import options

_ROUTES = (
    *gpu_api.ROUTES,
    *usage_pages.ROUTES,
    *team_pages.ROUTES,
    *notice_api.ROUTES,
    *inbox_api.ROUTES,
    *quota_api.ROUTES,
    *reservation_api.ROUTES,
    *warm_api.ROUTES,
    *course_api.ROUTES,
    *course_end.ROUTES,
    *handin_api.ROUTES,
    *grading_api.ROUTES,
    *shared_api.ROUTES,
    *material_api.ROUTES,
    *jobs_api.ROUTES,
    *broadcast_api.ROUTES,
    *maintenance_api.ROUTES,
    *metrics.ROUTES,
    *server_api.ROUTES,
    *people_api.ROUTES,
    *today.ROUTES,
    *doctor_pages.ROUTES,
    *vulnerable_pages.ROUTES,
    Route("/health", handlers.Health),
)
_WITH_DATA = (
    *environments.ROUTES,
    *channel_api.ROUTES,
    *audit_api.ROUTES,
    *jobs_api.LOG_ROUTES,
    *ssh_pages.ROUTES,
)
ROUTES = (*_ROUTES, *_WITH_DATA)

PORT = 8083
PREFIX = "/services/labcommons/"
SERVICE = "labcommons"
TOKEN_FILE = "console-token"  # noqa: S105  (its name)
_PACKAGE = Path(__file__).parent


def described(prefix: str) -> dict[str, Any]:
    """The API in OpenAPI; and, for who starts servers at the hub's, what may be asked there."""
    document = openapi.document("LabCommons console", prefix, ROUTES)
    document["components"]["schemas"]["UserOptions"] = options.schema()
    return document


def make_app(
    site: Site,
    store: Store,
    hub_auth: HubOAuth,
    data: Path | None = None,
    audit: AuditTrail | None = None,
) -> Application:
    """The application: a site, its store, a way to ask the hub, the data folder, the trail."""
    data = data or Path(os.environ.get("LABCOMMONS_DATA", "/srv/labcommons/data"))
    templates = service_templates(site, _PACKAGE / "templates")
    shared = {"hub_auth": hub_auth, "store": store, "templates": templates, "site": site}
    prefix = hub_auth.base_url
    with_data, static = {**shared, "data": data}, r"([a-z]+\.(?:css|js|svg))"
    picture = r"([A-Za-z_]+/[a-z-]+\.webp)"
    course, hand_in = rf"{prefix}courses/([a-z0-9._-]{{1,64}})", "([a-z0-9._-]{1,64})"
    handed = "handed-in/([0-9a-f]{12})"
    own = "[a-z0-9._-]{1,80}"
    in_channel = (
        rf"(?:t/(?P<secret>[A-Za-z0-9_.~-]{{1,300}})/)?(?P<channel>{own})"
        r"/(?P<subdir>[a-z0-9-]{1,40})/(?P<file>[^/]{1,300}|shards/[^/]{1,100})"
    )
    rules: list[tuple[str, type, dict[str, Any]]] = [
        (prefix, gpu_pages.Overview, shared),
        (f"{prefix}today", today.TodayPage, shared),
        (f"{prefix}servers", server_pages.ServersPage, shared),
        (f"{prefix}people", people_pages.PeoplePage, shared),
        (f"{prefix}people/([^/]{{1,255}})", people_pages.PersonPage, shared),
        (f"{prefix}quotas", quota_pages.Quotas, shared),
        (f"{prefix}quotas/edit", quota_pages.Edit, shared),
        (f"{prefix}quotas\\.yaml", quota_pages.Export, shared),
        (f"{prefix}reservations", reservation_pages.Reservations, shared),
        (f"{prefix}teams", team_pages.TeamsPage, shared),
        (f"{prefix}teams/([a-z0-9._-]{{1,64}})", team_pages.TeamPage, shared),
        (f"{prefix}usage", usage_pages.Usage, shared),
        (f"{prefix}usage\\.csv", usage_pages.Export, shared),
        (f"{prefix}usage/report", usage_pages.MonthlyReport, shared),
        (f"{prefix}ahead", warm_pages.Ahead, shared),
        (f"{prefix}courses", course_pages.Courses, shared),
        (f"{prefix}courses/([a-z0-9._-]{{1,64}})", course_pages.CoursePage, shared),
        (f"{prefix}courses/([a-z0-9._-]{{1,64}})/course\\.yaml", course_pages.Export, shared),
        (f"{course}/end", course_end.EndPage, shared),
        (f"{course}/archives/([0-9a-f]{{12}})", course_end.ArchiveFile, with_data),
        (f"{prefix}shared", shared_pages.Shared, shared),
        (f"{course}/handins", handin_pages.HandIns, shared),
        (f"{course}/handins/{hand_in}", handin_pages.OneHandIn, shared),
        (f"{course}/handins/{hand_in}/files\\.zip", handin_downloads.AllFiles, with_data),
        (f"{course}/handins/{hand_in}/marks\\.csv", handin_pages.MarksFile, shared),
        (f"{course}/handins/{hand_in}/feedback\\.zip", handin_downloads.Feedback, with_data),
        (f"{course}/{handed}", handin_pages.OneHandedIn, with_data),
        (rf"{course}/{handed}/files\.zip", handin_downloads.Files, with_data),
        (rf"{course}/{handed}/receipt\.json", handin_downloads.Receipt, with_data),
        (f"{prefix}maintenance", maintenance_api.MaintenancePage, shared),
        (f"{prefix}broadcasts", broadcast_pages.Broadcasts, shared),
        (f"{prefix}environments", environments.EnvironmentsPage, with_data),
        (f"{prefix}channels", channel_pages.ChannelsPage, with_data),
        (f"{prefix}channels/({own})", channel_pages.ChannelPage, with_data),
        (f"{prefix}channels/{in_channel}", channel_files.ChannelFile, with_data),
        (f"{prefix}disk", disk_pages.Disk, with_data),
        (f"{prefix}audit", audit_pages.Trail, with_data),
        (f"{prefix}audit\\.(csv|jsonl)", audit_pages.Export, with_data),
        (f"{prefix}files", backup_pages.EarlierFiles, shared),
        (f"{prefix}files/download", backup_pages.EarlierFile, shared),
        (f"{prefix}ssh", ssh_pages.SshPage, with_data),
        (f"{prefix}doctor", doctor_pages.HealthPage, shared),
        (f"{prefix}vulnerable", vulnerable_pages.VulnerablePage, shared),
        (f"{prefix}mirror", mirror_pages.MirrorPage, with_data),
        (f"{prefix}jobs", jobs_pages.JobsPage, shared),
        (f"{prefix}jobs/([0-9_]{{1,30}})", jobs_pages.JobPage, with_data),
        (f"{prefix}inbox", inbox_pages.Inbox, shared),
        (f"{prefix}help(?:/([a-z]+))?", help_pages.Help, shared),
        (f"{prefix}help/pictures/{picture}", handlers.Static, {"path": str(help_pages.PICTURES)}),
        (f"{prefix}oauth_callback", handlers.Callback, shared),
        *((one.regex(prefix), one.handler, shared) for one in _ROUTES),
        *((one.regex(prefix), one.handler, with_data) for one in _WITH_DATA),
        (f"{prefix}openapi.json", handlers.Described, shared),
        (f"{prefix}static/{static}", handlers.Static, {"path": str(STATIC)}),
        (f"{prefix}assets/{static}", handlers.Static, {"path": str(_PACKAGE / "static")}),
        (f"{prefix}api/.*", handlers.ApiNotFound, shared),
    ]
    return Application(
        [(address, guarded(handler, handlers.kind_of), given) for address, handler, given in rules],
        default_handler_class=guarded(handlers.NotFound, handlers.kind_of),
        default_handler_args=shared,
        described=described(prefix),
        audit=audit or AuditTrail(),
        health=data / "health",
        readers=Readers(store, site),
        board=Board(store),
        live=Live(hub_auth),
        # For the cookie of a login under way only; a restart asks to log in once more.
        cookie_secret=secrets.token_bytes(32),
        xsrf_cookie_kwargs=XSRF_COOKIE,
    )


@click.command()
@click.option("--port", default=PORT, show_default=True, help="Port to listen on.")
def console(port: int) -> None:
    """Serve the console (settings: the site file and the variables JUPYTERHUB_*)."""
    site = load_site()
    auth = hub_auth(site, SERVICE, TOKEN_FILE)
    store = Store()
    try:
        app = make_app(site, store, auth, audit=AuditTrail(Chain(folder("console"), "console")))
        # In a container, reached by the proxy alone.
        asyncio.run(serve(app, "0.0.0.0", port, MAX_BODY))  # noqa: S104
    finally:
        store.close()

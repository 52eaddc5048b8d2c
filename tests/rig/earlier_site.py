"""Both databases of a site as an earlier version writes them, as SQL for SQLite and PostgreSQL.

Run with that version's own code (the tests' packages fit)::

    git worktree add /tmp/earlier COMMIT
    cp tests/rig/earlier_site.py /tmp/earlier/tests/rig/
    cd /tmp/earlier && PYTHONPATH=. PYTHON tests/rig/earlier_site.py FOLDER

It writes FOLDER/store-REVISION.{sqlite,postgresql}.sql and FOLDER/hub-REVISION.… , which
tests/commons/test_upgrade.py migrates to now. A table without any row is an error.
"""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from datetime import date, datetime, timedelta
from pathlib import Path

from jupyterhub import orm
from sqlalchemy import Integer, MetaData, create_engine, insert, select, text
from sqlalchemy.orm import Session

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from commons import notices
from commons.site import load_site
from commons.store import ends, models
from commons.store.database import Store
from commons.store.environments import BuildState, EnvironmentBuild, ScopeEnvironment
from hub_ext import demo
from rig.postgres import Postgres
from spawner.gpu.ledger import allocation, transitions
from spawner.gpu.ledger.allocation import Ask
from spawner.gpu.quotas.document import read_document

NOW = datetime(2026, 11, 20, 12, 0)  # a Friday
VERSIONS = "labcommons_alembic_version"
SPEC = "name: analyse\ndependencies: [python=3.13, pip: [numpy]]\n"


def live(session: Session) -> None:
    """Two weeks of past, limits, a reservation; then who works, who waits, and what is told."""
    site = load_site(Path("config/demo/site.yaml"))
    limits = read_document(Path("config/demo/quotas.yaml").read_text("utf-8"), "quotas.yaml")
    demo.DAYS = 4
    assert demo.begin(session, site, limits, NOW)
    vision, course = "group:vision", "course:ml101"
    asks = [
        Ask("alice", "", vision, 1, "A100", 3600.0),
        Ask("bob", "second", vision, 1, "", 7200.0),
        Ask("s01", "", course, 1, "", 3600.0),
        Ask("s02", "", course, 1, "", 1800.0),
    ]
    session.info.pop(transitions.NOW, None)
    transitions.lock(session, NOW)
    standings = allocation.admit(session, asks).standings
    held = [one.lease for one in standings if one.held]
    assert len(held) < len(asks)  # somebody waits
    transitions.activate(session, held[0], "c" * 64)
    key = f"granted:{held[0]}"
    notices.add(
        session, username="alice", lease_id=held[0], code="granted", data={}, key=key, now=NOW
    )
    session.add(models.GpuWatch(lease_id=held[0], at=NOW, use="idle", idle_seconds=61.5))
    ending = ends.Ending("out_of_memory", data={"limit_bytes": 2**40, "size": "groß"})
    ends.record(session, "d" * 64, "bob", "", ending)


def rest(session: Session) -> None:
    """What other parts keep."""
    m = models
    zh = {"en": "Data", "zh_CN": "数据"}
    session.add_all(
        [
            m.KeptReader(username="李雷", chosen="zh_CN", directory="", timezone="Asia/Shanghai"),
            m.GpuNode(name="local", drained_at=NOW, drained_by="carol", drain_reason="a fan's"),
            m.SentNotebook(
                at=NOW, sender="bob", username="alice", name="Übung.ipynb", size=12,
                environment="py313-data:2026.11.20-1", packed=b"\x00\xffx",
            ),
            m.RefusedSender(username="alice", sender="s02"),
            m.AnnouncedStop(
                username="bob", server_name="", by="carol", message="a new kernel; 'save' it",
                at=NOW, stop_at=NOW + timedelta(minutes=30),
            ),
            m.ServerWatch(
                key="e" * 64, username="s01", server_name="", at=NOW.timestamp(), use="idle",
                warned_at=1.5, keep_for=3600.0, keep_at_most=7200.0, stopping=True,
            ),
            m.EnvironmentVersion(
                name="py313-data", version="2026.11.20-1", image="labcommons/env-py313-data:1",
                image_id="sha256:" + "1" * 64, prefix="/opt/conda/envs/py313-data", python="3.13.1",
                lock_digest="sha256:" + "2" * 64, channels=["conda-forge"], words={"title": zh},
                main_packages=[{"name": "numpy", "version": "2.3"}], packages=[],
                kernelspecs={"python3": {"argv": ["python"]}}, created_at=NOW, tag="1.2.3",
                size=3 * 2**31, pinned=True, access={"teams": ["vision"], "courses": []},
                deprecated_at=NOW, deprecated_reason="old",
            ),
            m.RegisteredEnvironment(
                source="team-vision", environment="analyse", version="live", label="vision",
                prefix="/opt/labcommons/teams/vision/envs/analyse", state="ok", reason="",
                facts={"title": zh}, kernels=[{"name": "k", "display_name": "K", "language": "R"}],
                first_seen=NOW, last_seen=NOW,
            ),
            m.RegistrySource(source="shared", device="8:1", state="ok", reason="", since=NOW),
            m.KernelUsage(
                day=date(2026, 11, 20), username="alice", kernel="conda-image-py313-data-python3",
                source="image", environment="py313-data", version="1", starts=7, last_start=NOW,
            ),
            m.DirectoryPerson(
                name="alice", directory_id="6f1c", confirmed=NOW.timestamp(), barred=None,
                reason=None, roles={"teams": {"vision": "lead"}},
            ),
            m.DirectoryFailures(key="name:bob", times=[1.5, 2.25], last=2.25),
            m.ServerStart(
                username="s03", server_name="", user_options={"environment": "py313-data"},
                asked_at=NOW, tries=1,
            ),
            m.WarmStart(
                id="w1", name="lesson", subject="course:ml101", people=[], starts_at=NOW,
                user_options={"size": "small"}, hold_until=NOW, created_by="dan", created_at=NOW,
            ),
            EnvironmentBuild(
                id="b1", action="create", scope="team", owner="vision", name="analyse",
                requested_by="bob", spec=SPEC, state=BuildState.FAILED, message="no such package",
                said={"text": "no %(x)s", "values": {"x": 1}}, queued_at=NOW, ended_at=NOW,
            ),
            ScopeEnvironment(
                scope="personal", owner="alice", name="mine", version="1", built_by="alice",
                created_at=NOW, spec=SPEC, lock="lock", exports={"pixi": "x"}, packages=[],
                kernels={}, findings=[{"rule": "old"}], withdrawn_at=NOW, withdrawn_reason="wrong",
            ),
        ]
    )  # fmt: skip
    session.flush()
    session.add(m.WarmServer(warm_id="w1", username="s04", state="ready", tries=1, at=NOW))


def hub(session: Session) -> None:
    """People, their groups, roles and tokens, a server that runs, a service."""
    alice = orm.User(name="alice", created=NOW, last_activity=NOW, cookie_id="cookie-alice")
    alice.encrypted_auth_state = b"\x01\x02secret"
    carol = orm.User(name="carol", admin=True, created=NOW, cookie_id="cookie-carol")
    team = orm.Group(name="team:vision", properties={"gid": 2001}, users=[alice])
    role = orm.Role(name="user", description="a person", scopes=["self"], users=[alice, carol])
    service = orm.Service(name="labcommons", url="http://console:8083", oauth_no_confirm=True)
    client = orm.OAuthClient(
        identifier="jupyterhub-user-alice", description="alice's", secret="x",
        redirect_uri="/user/alice/oauth_callback", allowed_scopes=["access:servers!server=alice/"],
    )  # fmt: skip
    server = orm.Server(proto="http", ip="172.18.0.9", port=8888, base_url="/user/alice/")
    state = {"container": "c" * 64, "environment": "py313-data:2026.11.20-1"}
    spawner = orm.Spawner(
        user=alice, name="", state=state, server=server, started=NOW, last_activity=NOW,
        user_options={"environment": "py313-data", "gpus": 1},
    )  # fmt: skip
    spawner.oauth_client = client
    session.add_all([alice, carol, team, role, service, client, server, spawner])
    session.flush()
    session.add(
        orm.APIToken(
            user=alice, hashed="sha512:1:abcd:ef", prefix="abcd", note="脚本", created=NOW,
            scopes=["self"], expires_at=NOW + timedelta(days=400), client_id=client.identifier,
        )
    )  # fmt: skip
    share = orm.Share(
        owner=alice, spawner=spawner, user=carol, scopes=["access:servers!server=alice/"]
    )
    share.created_at = NOW
    session.add(share)


def copied(source: str, target: str, empty: Sequence[str]) -> None:
    """All rows of one database in another, whose tables are there."""
    found = MetaData()
    origin, other = create_engine(source), create_engine(target)
    found.reflect(other)
    with origin.connect() as reader, other.begin() as writer:
        for table in found.sorted_tables:
            writer.execute(table.delete())
            rows = [dict(row) for row in reader.execute(select(table)).mappings()]
            assert rows or table.name in empty, f"no rows in {table.name}"
            if rows:
                writer.execute(insert(table), rows)
        # Counted on as if they had been written one after the other.
        for table in found.sorted_tables:
            if "id" in table.c and isinstance(table.c.id.type, Integer):
                sequence = f"pg_get_serial_sequence('{table.name}', 'id')"
                writer.execute(text(f"SELECT setval({sequence}, max(id)) FROM {table.name}"))
    origin.dispose()
    other.dispose()


def dump(server: Postgres, url: str, file: Path, stem: str, folder: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        lines = "\n".join(database.iterdump())
    (folder / f"{stem}.sqlite.sql").write_text(lines + "\n", "utf-8")
    name = create_engine(url).url.database
    words = ["pg_dump", "--inserts", "--no-owner", "--host", str(server.folder), str(name)]
    said = subprocess.run(
        [server.bin / words[0], *words[1:]], user=server.user, cwd="/", check=True, text=True,
        capture_output=True,
    ).stdout  # fmt: skip
    # Comments, and what only one version of psql understands.
    kept = [
        line
        for line in said.splitlines()
        if line and not re.match(r"--|\\|SET |SELECT pg_catalog.set_config", line)
    ]
    (folder / f"{stem}.postgresql.sql").write_text("\n".join(kept) + "\n", "utf-8")


def main(folder: Path) -> None:
    """Write all four files."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        work.chmod(0o755)
        with Postgres(work / "pg") as server:
            file, url = work / "store.sqlite", server.database("store")
            store, other = Store(f"sqlite:///{file}"), Store(url)
            store.migrate()
            other.migrate()
            store.transact(live)
            store.transact(rest)
            with store.engine.connect() as connection:
                revision = connection.scalar(text(f"SELECT version_num FROM {VERSIONS}"))
            store.close()
            other.close()
            copied(f"sqlite:///{file}", url, [])
            dump(server, url, file, f"store-{revision}", folder)

            file, url = work / "hub.sqlite", server.database("hub")
            for address in (f"sqlite:///{file}", url):
                orm.new_session_factory(address)().close()
            engine = create_engine(f"sqlite:///{file}")
            with Session(engine) as session, session.begin():
                hub(session)
            with engine.connect() as connection:
                revision = connection.scalar(text("SELECT version_num FROM alembic_version"))
            engine.dispose()
            copied(f"sqlite:///{file}", url, HUB_EMPTY)
            dump(server, url, file, f"hub-{revision}", folder)


# What JupyterHub needs only for a moment, or we do not use.
HUB_EMPTY = ("oauth_codes", "share_codes", "service_role_map", "group_role_map")

if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

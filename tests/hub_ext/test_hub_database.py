"""The hub's own database as a file: quicker to write, and whole when JupyterHub copies it."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from jupyterhub import orm
from sqlalchemy import event

from hub_ext.hub_database import without_pings, write_ahead


def test_what_jupyterhub_writes_waits_for_the_disk_once_and_still_does(tmp_path: Path) -> None:
    file = tmp_path / "hub/jupyterhub.sqlite"
    file.parent.mkdir()
    url = f"sqlite:///{file}"
    write_ahead(url)
    session = orm.new_session_factory(url)()
    assert session.execute(orm.text("PRAGMA journal_mode")).scalar() == "wal"
    # FULL: what was committed outlives a power failure.
    assert session.execute(orm.text("PRAGMA synchronous")).scalar() == 2
    session.add(orm.User(name="alice"))
    session.commit()
    # The hub is killed here: what it wrote is in the log alone.
    shutil.copytree(file.parent, tmp_path / "after")
    session.close()
    after = tmp_path / "after/jupyterhub.sqlite"
    assert "alice" not in users(copied(after))
    write_ahead(f"sqlite:///{after}")
    assert "alice" in users(copied(after))


def test_other_databases_and_folders_that_are_not_there_are_left_to_jupyterhub(tmp_path) -> None:
    for url in ("postgresql+psycopg://labcommons@db/jupyterhub", "sqlite://", "sqlite:///:memory:"):
        write_ahead(url)
    write_ahead(f"sqlite:///{tmp_path}/none/jupyterhub.sqlite")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_asked_whether_it_is_there_before_each_transaction(tmp_path: Path) -> None:
    statements: list[str] = []
    with closing(orm.new_session_factory(f"sqlite:///{tmp_path}/hub.sqlite")()) as session:
        engine = session.get_bind()
        event.listen(engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
        session.query(orm.User).first()
        session.commit()
        assert "SELECT 1" in statements
        statements.clear()
        without_pings(engine)
        session.query(orm.User).first()
        assert len(statements) == 1


def copied(file: Path) -> Path:
    """The file alone, as JupyterHub keeps it before an upgrade."""
    return Path(shutil.copy(file, file.parent / "copy.sqlite"))


def users(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        try:
            return [name for (name,) in connection.execute("SELECT name FROM users")]
        except sqlite3.OperationalError:  # not even the tables are in it
            return []

"""Locks that somebody's builder reported are forgotten: a copy is solved anew by the service"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    # Until now pip's packages were chosen, and folders were looked at, with a person's rights,
    # beside programs of packages. What conda's packages alone made up was always the service's.
    for table, more in (("tier_environments", "OR version = 'live'"), ("environment_builds", "")):
        which = f"lock != '' AND (spec LIKE '%pip%' {more})"
        op.execute(sa.text(f"UPDATE {table} SET lock = '' WHERE {which}"))  # noqa: S608

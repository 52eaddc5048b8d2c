"""Servers that are started ahead of time beside another one of their person have a name"""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"


def upgrade() -> None:
    column = sa.Column("server_name", sa.String(255), nullable=False, server_default="")
    op.add_column("warm_servers", column)

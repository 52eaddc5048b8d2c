"""Notices about servers that have no lease, and stops that were announced"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    op.add_column("gpu_notices", sa.Column("server_name", sa.String(length=255), nullable=True))
    op.create_table(
        "announced_stops",
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("server_name", sa.String(length=255), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("message", sa.String(length=500), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("stop_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("username", "server_name"),
    )

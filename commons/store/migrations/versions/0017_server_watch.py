"""How running servers are used, for sites that stop those that nobody uses"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.create_table(
        "server_watch",
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("server_name", sa.String(length=255), nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("use", sa.String(length=16), nullable=False),
        sa.Column("idle_seconds", sa.Float(53), nullable=False),
        sa.Column("warned_at", sa.Float(53), nullable=True),
        sa.Column("stop_at", sa.Float(53), nullable=True),
        sa.Column("warnings", sa.Integer(), nullable=False),
        sa.Column("old_at", sa.Float(53), nullable=True),
        sa.Column("keep_until", sa.Float(53), nullable=True),
        sa.Column("kept_seconds", sa.Float(53), nullable=False),
        sa.Column("keep_for", sa.Float(53), nullable=False),
        sa.Column("keep_at_most", sa.Float(53), nullable=False),
        sa.Column("stopping", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_server_watch_username", "server_watch", ["username"])

"""Servers of teams and courses, which their people use together"""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"


def upgrade() -> None:
    op.create_table(
        "shared_servers",
        sa.Column("scope", sa.String(80), primary_key=True),
        sa.Column("name", sa.String(30), primary_key=True),
        sa.Column("user_options", sa.JSON(), nullable=False),
        sa.Column("leads_only", sa.Boolean(), nullable=False),
        sa.Column("members_run", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("reason", sa.JSON(), nullable=True),
        sa.Column("people", sa.JSON(), nullable=False),
    )

"""Jobs: programs that people have run without their servers"""

import sqlalchemy as sa
from alembic import op

revision = "0036"
down_revision = "0034"


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("array", sa.Integer()),
        sa.Column("task", sa.Integer()),
        sa.Column("at_once", sa.Integer()),
        sa.Column("command", sa.JSON(), nullable=False),
        sa.Column("folder", sa.String(1000), nullable=False),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("time_limit", sa.Integer()),
        sa.Column("after", sa.JSON(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("preemptible", sa.Boolean(), nullable=False),
        sa.Column("environment", sa.String(300), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.JSON()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("handle", sa.String(128), nullable=False),
        sa.Column("stop", sa.String(16), nullable=False),
        sa.Column("stopped_by", sa.String(255), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("exit_code", sa.Integer()),
        sa.Column("memory_peak", sa.BigInteger()),
        sa.Column("gpu_peak", sa.Float(53)),
        sa.Column("submitted_at", sa.DateTime(), nullable=False),
        sa.Column("started_at", sa.DateTime()),
        sa.Column("ended_at", sa.DateTime()),
        # A number is never another job's, also of one that is forgotten.
        sqlite_autoincrement=True,
    )
    for column in ("username", "array", "state", "settled", "ended_at"):
        op.create_index(f"ix_jobs_{column}", "jobs", [column])

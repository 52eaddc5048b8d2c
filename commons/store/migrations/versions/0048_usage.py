"""What servers and jobs had, from when until when; its sums by day; how long GPUs were idle"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0048"
down_revision = "0037"


def _figures() -> list[sa.Column[Any]]:
    seconds = ("gpu", "charged", "idle", "cpu", "memory", "wait")
    counts = ("waits", "servers", "jobs")
    return [
        *(sa.Column(f"{name}_seconds", sa.Float(53), nullable=False) for name in seconds),
        sa.Column("longest_wait", sa.Float(53), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in counts),
    ]


def upgrade() -> None:
    op.create_table(
        "server_runs",
        sa.Column("key", sa.String(128), primary_key=True),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("server_name", sa.String(255), nullable=False),
        sa.Column("account", sa.String(255), nullable=False),
        sa.Column("environment", sa.String(255), nullable=False),
        sa.Column("cpu", sa.Float(53), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.String(32)),
        sa.Column("began_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
    )
    op.create_index("ix_server_runs_ended_at", "server_runs", ["ended_at"])
    op.create_table(
        "usage_days",
        sa.Column("day", sa.Date(), primary_key=True),
        sa.Column("username", sa.String(255), primary_key=True),
        sa.Column("account", sa.String(255), primary_key=True),
        sa.Column("environment", sa.String(255), primary_key=True),
        sa.Column("model", sa.String(80), primary_key=True),
        *_figures(),
    )
    op.create_index("ix_usage_days_username", "usage_days", ["username", "day"])
    op.create_index("ix_usage_days_account", "usage_days", ["account", "day"])
    op.create_table(
        "usage_months",
        sa.Column("column", sa.String(16), primary_key=True),
        sa.Column("month", sa.Date(), primary_key=True),
        sa.Column("value", sa.String(255), primary_key=True),
        *_figures(),
    )
    op.create_table(
        "usage_marks",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(64), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
    )
    op.add_column(
        "gpu_watch",
        sa.Column("idle_total", sa.Float(53), nullable=False, server_default="0"),
    )

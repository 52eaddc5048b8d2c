"""How running leases use their GPUs, for reclaiming what is idle"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "gpu_watch",
        sa.Column("lease_id", sa.String(length=32), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("use", sa.String(length=16), nullable=False),
        sa.Column("gpu_percent", sa.Float(precision=53), nullable=True),
        sa.Column("idle_seconds", sa.Float(precision=53), nullable=False),
        sa.Column("warned_at", sa.DateTime(), nullable=True),
        sa.Column("stop_at", sa.DateTime(), nullable=True),
        sa.Column("warnings", sa.Integer(), nullable=False),
        sa.Column("kept_seconds", sa.Float(precision=53), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["gpu_leases.id"]),
        sa.PrimaryKeyConstraint("lease_id"),
    )

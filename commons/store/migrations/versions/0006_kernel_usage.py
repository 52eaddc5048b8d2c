"""The kernel registry by environment, its sources, and how often kernels are started"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # What was in it is found again by the registry's first pass.
    op.drop_table("kernels")
    op.create_table(
        "registered_environments",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=96), nullable=False),
        sa.Column("environment", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("label", sa.String(length=128), nullable=False),
        sa.Column("prefix", sa.String(length=1024), nullable=False),
        sa.Column("python", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=1000), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("kernels", sa.JSON(), nullable=False),
        sa.Column("first_seen", sa.DateTime(), nullable=False),
        sa.Column("last_seen", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "uq_registered_environments",
        "registered_environments",
        ["source", "environment", "version"],
        unique=True,
    )
    op.create_table(
        "registry_sources",
        sa.Column("source", sa.String(length=96), nullable=False),
        sa.Column("device", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=1000), nullable=False),
        sa.Column("since", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("source"),
    )
    op.create_table(
        "kernel_usage",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("kernel", sa.String(length=128), nullable=False),
        sa.Column("source", sa.String(length=96), nullable=False),
        sa.Column("environment", sa.String(length=255), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("starts", sa.Integer(), nullable=False),
        sa.Column("last_start", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "uq_kernel_usage",
        "kernel_usage",
        ["day", "username", "kernel", "source", "environment", "version"],
        unique=True,
    )
    op.create_index("ix_kernel_usage_day", "kernel_usage", ["day"])

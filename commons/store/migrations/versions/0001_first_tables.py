"""First tables"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "environment_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("image", sa.String(length=255), nullable=False),
        sa.Column("image_id", sa.String(length=80), nullable=False),
        sa.Column("prefix", sa.String(length=255), nullable=False),
        sa.Column("python", sa.String(length=32), nullable=True),
        sa.Column("lock_digest", sa.String(length=80), nullable=False),
        sa.Column("channels", sa.JSON(), nullable=False),
        sa.Column("words", sa.JSON(), nullable=False),
        sa.Column("main_packages", sa.JSON(), nullable=False),
        sa.Column("packages", sa.JSON(), nullable=False),
        sa.Column("kernelspecs", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("environment_versions", schema=None) as batch_op:
        batch_op.create_index("uq_environment_versions", ["name", "version"], unique=True)

    op.create_table(
        "gpu_devices",
        sa.Column("id", sa.String(length=96), nullable=False),
        sa.Column("node", sa.String(length=255), nullable=False),
        sa.Column("model", sa.String(length=80), nullable=False),
        sa.Column("memory", sa.BigInteger(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("present", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "gpu_leases",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("server_name", sa.String(length=255), nullable=False),
        sa.Column(
            "state",
            sa.Enum("held", "active", "ended", name="leasestate", native_enum=False, length=16),
            nullable=False,
        ),
        sa.Column("held_at", sa.DateTime(), nullable=False),
        sa.Column("active_at", sa.DateTime(), nullable=True),
        sa.Column("ended_at", sa.DateTime(), nullable=True),
        sa.Column("ended_reason", sa.String(length=64), nullable=True),
        sa.Column("container_id", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("gpu_leases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_gpu_leases_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_gpu_leases_username"), ["username"], unique=False)
        batch_op.create_index(
            "uq_gpu_leases_live",
            ["username", "server_name"],
            unique=True,
            sqlite_where=sa.text("state <> 'ended'"),
            postgresql_where=sa.text("state <> 'ended'"),
        )

    op.create_table(
        "kernels",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("source", sa.String(length=64), nullable=False),
        sa.Column("environment", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=255), nullable=False),
        sa.Column("language", sa.String(length=64), nullable=False),
        sa.Column("prefix", sa.String(length=255), nullable=False),
        sa.Column("registered_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("kernels", schema=None) as batch_op:
        batch_op.create_index("uq_kernels", ["name", "environment", "version"], unique=True)

    op.create_table(
        "gpu_lease_devices",
        sa.Column("lease_id", sa.String(length=32), nullable=False),
        sa.Column("device_id", sa.String(length=96), nullable=False),
        sa.Column("released_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(
            ["device_id"],
            ["gpu_devices.id"],
        ),
        sa.ForeignKeyConstraint(
            ["lease_id"],
            ["gpu_leases.id"],
        ),
        sa.PrimaryKeyConstraint("lease_id", "device_id"),
    )
    with op.batch_alter_table("gpu_lease_devices", schema=None) as batch_op:
        batch_op.create_index(
            "uq_gpu_lease_devices_live",
            ["device_id"],
            unique=True,
            sqlite_where=sa.text("released_at IS NULL"),
            postgresql_where=sa.text("released_at IS NULL"),
        )

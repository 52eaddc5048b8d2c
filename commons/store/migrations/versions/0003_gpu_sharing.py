"""GPUs shared fairly: what was asked, why it waits, quotas, reservations, usage, notices"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _devices()
    _leases()
    _lease_devices()
    _new_tables()


def _devices() -> None:
    op.create_table(
        "gpu_nodes",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("drained_at", sa.DateTime(), nullable=True),
        sa.Column("drained_by", sa.String(length=255), nullable=True),
        sa.Column("drain_reason", sa.String(length=255), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    for column in (
        sa.Column("parent", sa.String(length=96), nullable=False, server_default=""),
        sa.Column("sharing", sa.String(length=16), nullable=False, server_default="exclusive"),
        sa.Column("slots", sa.Integer(), nullable=False, server_default="1"),
        sa.Column("weight", sa.Float(precision=53), nullable=False, server_default="1"),
        sa.Column("health", sa.String(length=16), nullable=False, server_default="ok"),
        sa.Column("health_reason", sa.String(length=255), nullable=True),
        sa.Column("health_since", sa.DateTime(), nullable=True),
        sa.Column("drained_at", sa.DateTime(), nullable=True),
        sa.Column("drained_by", sa.String(length=255), nullable=True),
        sa.Column("drain_reason", sa.String(length=255), nullable=True),
    ):
        op.add_column("gpu_devices", column)


def _leases() -> None:
    op.drop_index("uq_gpu_leases_live", table_name="gpu_leases")
    with op.batch_alter_table("gpu_leases") as batch_op:
        batch_op.alter_column("held_at", existing_type=sa.DateTime(), nullable=True)
        for column in (
            sa.Column("account", sa.String(length=255), nullable=False, server_default=""),
            sa.Column("gpus", sa.Integer(), nullable=False, server_default="1"),
            sa.Column("gpu_type", sa.String(length=80), nullable=False, server_default=""),
            sa.Column("time_limit", sa.Integer(), nullable=True),
            sa.Column("user_options", sa.JSON(), nullable=False, server_default="{}"),
            sa.Column("requested_at", sa.DateTime(), nullable=True),
            sa.Column("opened_at", sa.DateTime(), nullable=True),
            sa.Column("ends_at", sa.DateTime(), nullable=True),
            sa.Column("borrowed", sa.Integer(), nullable=False, server_default="0"),
            sa.Column("exempt_until", sa.DateTime(), nullable=True),
            sa.Column("weight", sa.Float(precision=53), nullable=False, server_default="0"),
            sa.Column("reservation_id", sa.String(length=32), nullable=True),
            sa.Column("verdict", sa.JSON(), nullable=True),
            sa.Column("stop_reason", sa.String(length=64), nullable=True),
            sa.Column("stop_at", sa.DateTime(), nullable=True),
            sa.Column("warned_at", sa.DateTime(), nullable=True),
            sa.Column("keep_until", sa.DateTime(), nullable=True),
        ):
            batch_op.add_column(column)
    op.execute(
        "UPDATE gpu_leases SET requested_at = held_at, account = 'user:' || username, "
        "gpus = (SELECT count(*) FROM gpu_lease_devices d WHERE d.lease_id = gpu_leases.id)"
    )
    op.execute("UPDATE gpu_leases SET weight = gpus")
    with op.batch_alter_table("gpu_leases") as batch_op:
        batch_op.alter_column("requested_at", existing_type=sa.DateTime(), nullable=False)
        batch_op.create_index("ix_gpu_leases_account", ["account"], unique=False)
        batch_op.create_index("ix_gpu_leases_ended_at", ["ended_at"], unique=False)
    op.create_index(
        "uq_gpu_leases_live",
        "gpu_leases",
        ["username", "server_name"],
        unique=True,
        sqlite_where=sa.text("state <> 'ended'"),
        postgresql_where=sa.text("state <> 'ended'"),
    )


def _lease_devices() -> None:
    # The primary key gains the slot, which is a new table on SQLite.
    op.drop_index("uq_gpu_lease_devices_live", table_name="gpu_lease_devices")
    op.rename_table("gpu_lease_devices", "gpu_lease_devices_before")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX gpu_lease_devices_pkey RENAME TO gpu_lease_devices_before_pkey")
    op.create_table(
        "gpu_lease_devices",
        sa.Column("lease_id", sa.String(length=32), nullable=False),
        sa.Column("device_id", sa.String(length=96), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("released_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["device_id"], ["gpu_devices.id"]),
        sa.ForeignKeyConstraint(["lease_id"], ["gpu_leases.id"]),
        sa.PrimaryKeyConstraint("lease_id", "device_id", "slot"),
    )
    op.execute(
        "INSERT INTO gpu_lease_devices (lease_id, device_id, slot, released_at) "
        "SELECT lease_id, device_id, 0, released_at FROM gpu_lease_devices_before"
    )
    op.drop_table("gpu_lease_devices_before")
    op.create_index(
        "uq_gpu_lease_devices_live",
        "gpu_lease_devices",
        ["device_id", "slot"],
        unique=True,
        sqlite_where=sa.text("released_at IS NULL"),
        postgresql_where=sa.text("released_at IS NULL"),
    )


def _new_tables() -> None:
    op.create_table(
        "gpu_usage",
        sa.Column("lease_id", sa.String(length=32), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("account", sa.String(length=255), nullable=False),
        sa.Column("weight", sa.Float(precision=53), nullable=False),
        sa.Column("started_at", sa.DateTime(), nullable=False),
        sa.Column("charged_to", sa.DateTime(), nullable=False),
        sa.Column("gpu_seconds", sa.Float(precision=53), nullable=False),
        sa.Column("closed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["lease_id"], ["gpu_leases.id"]),
        sa.PrimaryKeyConstraint("lease_id"),
    )
    for column in ("username", "account", "charged_to"):
        op.create_index(f"ix_gpu_usage_{column}", "gpu_usage", [column], unique=False)
    op.create_table(
        "gpu_usage_sums",
        sa.Column("account", sa.String(length=255), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("period", sa.String(length=32), nullable=False),
        sa.Column("start", sa.Float(precision=53), nullable=False),
        sa.Column("gpu_seconds", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("account", "username", "period"),
    )
    op.create_table(
        "gpu_quotas",
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.Column("changed_by", sa.String(length=255), nullable=False),
        sa.PrimaryKeyConstraint("subject"),
    )
    op.create_table(
        "gpu_quota_changes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("by", sa.String(length=255), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_gpu_quota_changes_subject", "gpu_quota_changes", ["subject"], unique=False)
    op.create_table(
        "gpu_reservations",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("gpu_type", sa.String(length=80), nullable=False),
        sa.Column("devices", sa.JSON(), nullable=False),
        sa.Column("starts", sa.DateTime(), nullable=False),
        sa.Column("duration", sa.Integer(), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("repeat", sa.String(length=16), nullable=False),
        sa.Column("weekdays", sa.JSON(), nullable=False),
        sa.Column("until", sa.String(length=10), nullable=True),
        sa.Column("skipped", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "gpu_notices",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("lease_id", sa.String(length=32), nullable=True),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=True),
        sa.Column("mailed_at", sa.DateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("ix_gpu_notices_username", "gpu_notices", ["username"], unique=False)
    op.create_table(
        "gpu_state",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("latest", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )

    op.execute("INSERT INTO gpu_state (id, version, latest) VALUES (1, 0, '1970-01-01 00:00:00')")

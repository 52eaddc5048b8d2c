"""What environment versions are, and what was decided about them"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # The defaults are for rows that are there already; new ones bring their values.
    empty = {"access": "{}", "findings": "[]"}
    with op.batch_alter_table("environment_versions", schema=None) as batch_op:
        for column in (
            sa.Column("tag", sa.String(length=64), nullable=True),
            sa.Column("revision", sa.String(length=64), nullable=True),
            sa.Column("size", sa.BigInteger(), nullable=False, server_default="0"),
            sa.Column("cuda", sa.String(length=32), nullable=True),
            sa.Column("gpu", sa.String(length=16), nullable=False, server_default="none"),
            sa.Column("server_size", sa.String(length=64), nullable=True),
            sa.Column("access", sa.JSON(), nullable=False, server_default=empty["access"]),
            sa.Column("findings", sa.JSON(), nullable=False, server_default=empty["findings"]),
            sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("deprecated_at", sa.DateTime(), nullable=True),
            sa.Column("deprecated_reason", sa.String(length=500), nullable=True),
            sa.Column("withdrawn_at", sa.DateTime(), nullable=True),
            sa.Column("withdrawn_reason", sa.String(length=500), nullable=True),
            sa.Column("removed", sa.Boolean(), nullable=False, server_default=sa.false()),
        ):
            batch_op.add_column(column)

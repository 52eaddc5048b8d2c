"""What the directory said of people, and failed logins"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "directory_people",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("directory_id", sa.String(length=64), nullable=True),
        sa.Column("confirmed", sa.Float(precision=53), nullable=False),
        sa.Column("barred", sa.Float(precision=53), nullable=True),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("dismissed", sa.Boolean(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("directory_id"),
    )
    op.create_table(
        "directory_failures",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("times", sa.JSON(), nullable=False),
        sa.Column("last", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )

"""What is decided about versions outside images, and what builds say in other languages"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.add_column("environment_builds", sa.Column("said", sa.JSON(), nullable=True))
    for column in (
        sa.Column("tag", sa.String(length=64), nullable=True),
        sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("deprecated_at", sa.DateTime(), nullable=True),
        sa.Column("deprecated_reason", sa.String(length=500), nullable=True),
        sa.Column("withdrawn_at", sa.DateTime(), nullable=True),
        sa.Column("withdrawn_reason", sa.String(length=500), nullable=True),
    ):
        op.add_column("tier_environments", column)

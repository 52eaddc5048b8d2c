"""How each person reads: language and time zone"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "readers",
        sa.Column("username", sa.String(length=255), nullable=False),
        sa.Column("chosen", sa.String(length=16), nullable=False),
        sa.Column("directory", sa.String(length=64), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("username"),
    )

"""People who are shut out here"""

import sqlalchemy as sa
from alembic import op

revision = "0046"
down_revision = "0042"


def upgrade() -> None:
    op.create_table(
        "person_blocks",
        sa.Column("username", sa.String(255), primary_key=True),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("until", sa.DateTime()),
        sa.Column("stops", sa.Boolean(), nullable=False),
        sa.Column("acted_at", sa.DateTime()),
    )

"""Who has begun which exam"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"


def upgrade() -> None:
    op.create_table(
        "exam_sittings",
        sa.Column("course", sa.String(64), primary_key=True),
        sa.Column("exam", sa.String(40), primary_key=True),
        sa.Column("username", sa.String(255), primary_key=True),
        sa.Column("options", sa.JSON(), nullable=False),
        sa.Column("begun_at", sa.DateTime(), nullable=False),
        sa.Column("ends_at", sa.DateTime(), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("collected_at", sa.DateTime()),
    )
    op.create_index("ix_exam_sittings_username", "exam_sittings", ["username"])

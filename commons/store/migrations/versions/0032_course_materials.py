"""Materials of courses"""

import sqlalchemy as sa
from alembic import op

revision = "0032"
down_revision = "0031"


def upgrade() -> None:
    op.create_table(
        "course_materials",
        sa.Column("course", sa.String(64), primary_key=True),
        sa.Column("asked_at", sa.DateTime),
        sa.Column("tried_at", sa.DateTime),
        sa.Column("fetched_at", sa.DateTime),
        sa.Column("source", sa.String(750), nullable=False),
        sa.Column("revision", sa.String(40), nullable=False),
        sa.Column("files", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("left_out", sa.JSON, nullable=False),
        sa.Column("more_left_out", sa.Integer, nullable=False),
        sa.Column("problem", sa.JSON),
    )

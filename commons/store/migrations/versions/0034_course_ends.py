"""The end of a term: courses that are frozen, archives and removals"""

import sqlalchemy as sa
from alembic import op

revision = "0034"
down_revision = "0033"


def upgrade() -> None:
    op.create_table(
        "course_ends",
        sa.Column("course", sa.String(64), primary_key=True),
        sa.Column("frozen_at", sa.DateTime()),
        sa.Column("changed_by", sa.String(255), nullable=False),
        sa.Column("frozen_for", sa.String(10), nullable=False),
        sa.Column("told_for", sa.String(10), nullable=False),
    )
    op.create_table(
        "course_works",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("course", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("asked_by", sa.String(255), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("message", sa.JSON()),
        sa.Column("all_bytes", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("left_out", sa.Integer(), nullable=False),
        sa.Column("packed", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("statement", sa.JSON()),
    )
    op.create_index("ix_course_works_course", "course_works", ["course"])
    op.create_index("ix_course_works_state", "course_works", ["state"])

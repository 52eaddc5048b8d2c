"""What students hand in, deadlines and groups of their own, and marks"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"


def upgrade() -> None:
    op.create_table(
        "handed_in",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("course", sa.String(64), nullable=False),
        sa.Column("handin", sa.String(64), nullable=False),
        sa.Column("team", sa.String(255), nullable=False),
        sa.Column("username", sa.String(255), nullable=False),
        sa.Column("members", sa.JSON(), nullable=False),
        sa.Column("path", sa.String(1000), nullable=False),
        sa.Column("asked_at", sa.DateTime(), nullable=False),
        sa.Column("due_at", sa.DateTime()),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ended_at", sa.DateTime()),
        sa.Column("message", sa.JSON()),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("files", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("left_out", sa.Integer(), nullable=False),
        sa.Column("receipt", sa.JSON()),
    )
    op.create_index("ix_handed_in_course", "handed_in", ["course", "handin", "team"])
    op.create_index("ix_handed_in_state", "handed_in", ["state", "asked_at"])
    op.create_table(
        "handin_extensions",
        sa.Column("course", sa.String(64), primary_key=True),
        sa.Column("handin", sa.String(64), primary_key=True),
        sa.Column("team", sa.String(255), primary_key=True),
        sa.Column("due_at", sa.DateTime(), nullable=False),
        sa.Column("given_at", sa.DateTime(), nullable=False),
        sa.Column("given_by", sa.String(255), nullable=False),
    )
    op.create_table(
        "handin_groups",
        sa.Column("course", sa.String(64), primary_key=True),
        sa.Column("handin", sa.String(64), primary_key=True),
        sa.Column("username", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(64), nullable=False),
    )
    op.create_table(
        "course_marks",
        sa.Column("course", sa.String(64), primary_key=True),
        sa.Column("handin", sa.String(64), primary_key=True),
        sa.Column("username", sa.String(255), primary_key=True),
        sa.Column("mark", sa.String(40), nullable=False),
        sa.Column("comment", sa.String(2000), nullable=False),
        sa.Column("changed_at", sa.DateTime(), nullable=False),
        sa.Column("changed_by", sa.String(255), nullable=False),
    )

"""Known holes of versions that were built, and when they were looked for"""

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0048"


def upgrade() -> None:
    op.create_table(
        "environment_holes",
        sa.Column("source", sa.String(80), primary_key=True),
        sa.Column("owner", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("version", sa.String(64), primary_key=True),
        sa.Column("hole", sa.String(100), primary_key=True),
        sa.Column("package", sa.String(128), primary_key=True),
        sa.Column("package_version", sa.String(64), primary_key=True),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("fixed", sa.String(64), nullable=False),
        sa.Column("blocks", sa.Boolean(), nullable=False),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
    )
    op.create_table(
        "environment_scannings",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("at", sa.DateTime(), nullable=False),
        sa.Column("versions", sa.Integer(), nullable=False),
        sa.Column("advisories", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
    )

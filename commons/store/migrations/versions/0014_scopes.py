"""Scope is the one word for whose environments are"""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.execute("ALTER TABLE tier_environments RENAME TO scope_environments")
    for table in ("scope_environments", "environment_builds"):
        op.execute(f"ALTER TABLE {table} RENAME COLUMN tier TO scope")
    op.drop_index("uq_tier_environments", "scope_environments")
    op.create_index(
        "uq_scope_environments",
        "scope_environments",
        ["scope", "owner", "name", "version"],
        unique=True,
    )

"""Whether a lease is granted in maintenance, too"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"


def upgrade() -> None:
    op.add_column(
        "gpu_leases",
        sa.Column("anytime", sa.Boolean, nullable=False, server_default=sa.false()),
    )

"""What an administrator made of a request's place in the queue"""

import sqlalchemy as sa
from alembic import op

revision = "0049"
down_revision = "0046"


def upgrade() -> None:
    for column in (
        sa.Column("queue_rank", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("queue_paused", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("queue_by", sa.String(255), nullable=False, server_default=""),
        sa.Column("queue_reason", sa.String(500), nullable=False, server_default=""),
    ):
        op.add_column("gpu_leases", column)

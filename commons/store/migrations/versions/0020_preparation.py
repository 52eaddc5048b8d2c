"""How long a server has worked since its GPUs were last used"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    op.add_column(
        "gpu_watch",
        sa.Column("prepared_seconds", sa.Float(53), nullable=False, server_default="0"),
    )

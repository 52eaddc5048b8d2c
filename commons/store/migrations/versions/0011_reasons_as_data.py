"""Why environments are not well is kept as data, for which a thousand characters are too few"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    for table in ("registered_environments", "registry_sources"):
        with op.batch_alter_table(table) as batch:
            batch.alter_column(
                "reason",
                type_=sa.Text(),
                existing_type=sa.String(length=1000),
                existing_nullable=False,
            )

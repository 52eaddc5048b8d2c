"""Alembic: migrations run inside the connection that ``Store.migrate`` hands over."""

from alembic import context

from commons.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    version_table="labcommons_alembic_version",
)
with context.begin_transaction():
    context.run_migrations()

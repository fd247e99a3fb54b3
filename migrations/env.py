"""The entry of Alembic, which runs the revisions on the connection that `registry.store.migration` passes."""

from alembic import context

from registry.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
with context.begin_transaction():
    context.run_migrations()

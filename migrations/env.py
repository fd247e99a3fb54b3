"""The entry of Alembic: `registry.store.migration` passes a connection, or wants the SQL of the revisions as text."""

from alembic import context

from registry.store.tables import metadata

if context.is_offline_mode():
    context.configure(
        dialect_name="postgresql", output_buffer=context.config.output_buffer, transaction_per_migration=False
    )
else:
    context.configure(
        connection=context.config.attributes["connection"], target_metadata=metadata, transaction_per_migration=False
    )
with context.begin_transaction():
    if context.is_offline_mode():
        context.execute(context.config.attributes["lock"])
    context.run_migrations()

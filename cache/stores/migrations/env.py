"""What Alembic runs: migrations on the connection that `cache.stores.migrate` gives it."""

from alembic import context

from cache.stores.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table="cache_schema_version",
    render_as_batch=True,  # SQLite changes a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()

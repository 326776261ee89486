"""Alembic's entry: domain.store hands over the connection; there is no alembic.ini."""

from alembic import context
from sqlmodel import SQLModel

import domain.model  # noqa: F401  # fills the metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()

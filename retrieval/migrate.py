"""Brings a database's tables to today's form, whoever made them and when."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from cache.database import Database
from retrieval.errors import StorageError

MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> Database:
    """The database behind an SQLAlchemy URL, with the tables as they are today. Raises `StorageError`."""
    # Full synchronous, SQLite's default, stays on: an accepted document must not be lost.
    database = Database(url, StorageError)
    with database.exclusive("mygo-retrieval-migrations") as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return database

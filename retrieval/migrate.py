"""Opens the document store's database."""

from pathlib import Path

from cache.database import Database
from cache.migrate import migrate
from retrieval.errors import StorageError

MIGRATIONS = Path(__file__).parent / "migrations"


def open_database(url: str) -> Database:
    """The database behind an SQLAlchemy URL, with the tables as they are today. Raises `StorageError`."""
    # Full synchronous, SQLite's default, stays on: an accepted document must not be lost.
    database = Database(url, StorageError)
    migrate(database, MIGRATIONS, "mygo-retrieval-migrations")
    return database

"""Brings a database's tables to today's form, whoever made them and when."""

from pathlib import Path

from alembic import command
from alembic.config import Config

from cache.database import Database

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(database: Database) -> None:
    """Runs the migrations that the database lacks. Processes that start together take turns. Raises the database's error."""
    with database.exclusive("mygo-migrations") as connection:
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

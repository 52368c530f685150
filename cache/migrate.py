"""Brings a database's tables to today's form, whoever made them and when."""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config

from cache.database import Database

_ALONE = threading.Lock()
"""Alembic's environment is the process's, not the call's."""


def migrate(database: Database, migrations: Path, lock: str) -> None:
    """Runs the migrations of a directory that the database lacks. Processes that start together take turns at the lock of this name.
    Raises the database's error.
    """
    with _ALONE, database.exclusive(lock) as connection:
        config = Config()
        config.set_main_option("script_location", str(migrations).replace("%", "%%"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

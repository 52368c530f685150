"""What must outlive the machine's fall."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """A file's bytes, or the names in a directory, are on disk. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

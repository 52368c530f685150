"""The application's secret, and what is derived from it."""

import hmac
import os
import secrets
from pathlib import Path

from serve_app.config import AppConfig
from serve_app.errors import ConfigError

_FILE = "secret"


def application_secret(config: AppConfig) -> bytes:
    """The configured secret, or the one in the data directory, which is made at the first start.

    It must outlive restarts: tenants' namespaces are derived from it, and with another one their cached answers would
    not be found again. Raises `ConfigError`.
    """
    if config.secret:
        return config.secret.get_secret_value().encode()
    directory = config.data_dir.expanduser()
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _read_or_create(directory / _FILE)
    except OSError as error:
        raise ConfigError(
            f"data_dir: {directory} cannot be used ({error.strerror}); set data_dir to a directory that can be written"
        ) from None


def _read_or_create(path: Path) -> bytes:
    """Another process may do the same at this moment: whoever links the file first has made the secret."""
    if not path.exists():
        draft = path.with_name(f"{_FILE}.{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(secrets.token_hex(32))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes()


def derive(secret: bytes, purpose: str) -> str:
    """A secret of its own for each purpose, so that one that leaks tells nothing about another."""
    return hmac.new(secret, f"mygo/{purpose}".encode(), "sha256").hexdigest()

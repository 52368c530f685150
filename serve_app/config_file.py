"""Reads the application's configuration from a Ray Serve file, for commands that need it without the application."""

from pathlib import Path
from typing import Any

import yaml

from serve_app.config import AppConfig, load_config
from serve_app.errors import ConfigError

IMPORT_PATH = "serve_app.app:build"


def read_config(path: Path) -> AppConfig:
    """What the one application with our import path is given. Raises `ConfigError`; `mygo doctor` says more."""
    try:
        content: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from None
    applications = content.get("applications") if isinstance(content, dict) else None
    found = [each for each in applications or () if isinstance(each, dict) and each.get("import_path") == IMPORT_PATH]
    if len(found) != 1:
        raise ConfigError(f"{path}: must have one application with the import_path {IMPORT_PATH}")
    return load_config(found[0].get("args") or {})

"""Secrets that stand in a configuration file, kept out of what Ray shows: it writes an application's arguments into its logs, and its REST
API tells them to whoever may ask it. What `env:NAME` refers to is in neither.
"""

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr

from serve_app.config import AppConfig, load_config

PREFIX = "MYGO_LITERAL_"
_REFERENCE = "env:"


def hidden(config: Path, directory: Path, environment: MutableMapping[str, str]) -> Path:
    """A file that says the same, with references to `environment` in the place of secrets; the file itself if there are none, or it is not
    what it should be (whoever reads it next says so). The new one is in `directory`, for its owner alone, and is to be deleted.
    """
    content = yaml.safe_load(config.read_text())
    try:
        found = [each for application in content["applications"] for each in _literals(application["args"])]
    except Exception:  # of many types
        return config
    if not found:
        return config
    for number, (section, name) in enumerate(found):
        variable = f"{PREFIX}{number}"
        environment[variable], section[name] = section[name], f"{_REFERENCE}{variable}"
    path = directory / f"config-{os.getpid()}.yaml"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        yaml.safe_dump(content, file)
    return path


def _literals(args: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Where secrets stand as they are: each in which section, under which name."""
    config: AppConfig = load_config(args)
    return list(_secrets(config, args))


def _secrets(value: Any, raw: Any) -> Iterator[tuple[dict[str, Any], str]]:
    """`raw`: what `value` was read from."""
    if isinstance(raw, dict):
        parts = dict(value) if isinstance(value, BaseModel | dict) else {}
        for name, part in parts.items():
            if isinstance(part, SecretStr) and isinstance(raw.get(name), str) and not raw[name].startswith(_REFERENCE):
                yield raw, name
            elif name in raw:
                yield from _secrets(part, raw[name])
    elif isinstance(raw, list) and isinstance(value, list | tuple):
        for part, each in zip(value, raw, strict=False):
            yield from _secrets(part, each)

"""What Ray would show of a configuration file that has secrets in it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.config import load_config
from serve_app.literal_secrets import hidden
from tests.serve_app.clients import CANARY

ARGS: dict[str, Any] = {
    "secret": CANARY,
    "auth": {"mode": "keys", "database_url": f"mysql+pymysql://mygo:{CANARY}@127.0.0.1/mygo"},
    "cache": {"vector_url": "env:MYGO_TEST_VECTORS"},
    "llm": {"engine": {"type": "simulated"}},
}


def written(tmp_path: Path, args: dict[str, Any]) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"http_options": {"port": 1}, "applications": [{"import_path": "serve_app.app:build", "args": args}]}))
    return path


def test_secrets_go_into_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYGO_TEST_VECTORS", "milvus://127.0.0.1:1")
    environment: dict[str, str] = {}
    path = written(tmp_path, ARGS)
    found = hidden(path, tmp_path, environment)
    assert CANARY not in found.read_text()
    assert (found != path, found.stat().st_mode & 0o777, len(environment)) == (True, 0o600, 2)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    content = yaml.safe_load(found.read_text())
    assert content["http_options"] == {"port": 1}
    assert load_config(content["applications"][0]["args"]) == load_config(ARGS)
    assert hidden(path, tmp_path, environment) == found  # again, after a start that was interrupted


@pytest.mark.parametrize("args", [{}, {"secret": "env:MYGO_TEST_VECTORS"}, {"auth": {"mod": CANARY}}, {"secret": 5}])
def test_what_has_none_or_is_not_understood_stays(tmp_path: Path, args: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYGO_TEST_VECTORS", "x")
    environment: dict[str, str] = {}
    path = written(tmp_path, args)
    assert (hidden(path, tmp_path, environment), environment) == (path, {})

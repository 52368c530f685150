"""`mygo keys` and `mygo tenants`: what they print where, and what they do."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from serve_app.cli import main
from serve_app.keyring.secret import digest, id_of
from serve_app.keyring.store import open_keyring


@pytest.fixture
def config(tmp_path: Path) -> Path:
    args = {"auth": {"mode": "keys"}, "data_dir": str(tmp_path / "data")}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"applications": [{"import_path": "serve_app.app:build", "args": args}]}))
    return path


@pytest.fixture
def mygo(config: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command, which must succeed; gives what it wrote to stdout."""

    def run(command: str, *arguments: str) -> str:
        assert main([*command.split(), str(config), *arguments]) == 0
        return capsys.readouterr().out

    return run


def test_a_new_keys_text_is_all_that_is_printed(mygo: Any, config: Path) -> None:
    text = mygo("keys create", "--tenant", "ada").removesuffix("\n")
    key_id = id_of(text)
    assert key_id is not None
    store = open_keyring(f"sqlite:///{config.parent}/data/keyring.db")
    found = store.find(key_id)
    store.close()
    assert found is not None
    assert (found[0].digest, found[0].info.settings.tenant) == (digest(text), "ada")


def test_settings(mygo: Any) -> None:
    options = "--role admin --name ci --model m --model n --cache exact --expires-in 2d --requests-per-minute 5 --queue 3"
    made = json.loads(mygo("keys create", "--tenant", "ada", *options.split(), "--json"))
    assert (made["role"], made["name"], made["models"], made["cache"]) == ("admin", "ci", ["m", "n"], "exact")
    assert made["limits"] == {"requests_per_minute": 5, "tokens_per_minute": None, "concurrency": None, "queue": 3}
    assert made["expires_at"] - made["created_at"] == pytest.approx(2 * 86_400, abs=2)
    assert id_of(made["key"]) == made["id"]
    changed = json.loads(mygo("keys change", made["id"], "--requests-per-minute", "none", "--concurrency", "1", "--json"))
    assert changed["limits"] == {"requests_per_minute": None, "tokens_per_minute": None, "concurrency": 1, "queue": 3}
    assert (changed["name"], changed["expires_at"]) == ("ci", made["expires_at"])


def test_access_groups(mygo: Any) -> None:
    made = json.loads(mygo("keys create", "--tenant", "ada", "--groups", "legal, staff", "--json"))
    assert made["groups"] == ["legal", "staff"]
    changes = [json.loads(mygo("keys change", made["id"], "--groups", said, "--json"))["groups"] for said in ("", "staff", "*")]
    assert changes == [[], ["staff"], None]
    assert json.loads(mygo("tenants change", "ada", "--groups", "legal", "--json"))["groups"] == ["legal"]
    assert json.loads(mygo("tenants change", "ada", "--weight", "2", "--json"))["groups"] == ["legal"]
    assert "legal" in mygo("tenants list")
    for said, shown in (("", "none"), ("*", "-"), ("staff", "staff")):
        assert f"groups:        {shown}\n" in mygo("keys change", made["id"], "--groups", said)
    details = [record["details"] for record in json.loads(mygo("keys audit", "--json"))]
    assert details[4] == {"groups": ["legal"]}
    assert [each["groups"] for each in details[5:]] == [None, ["staff"], [], ["legal", "staff"]]


def test_a_key_for_groups_that_its_tenant_is_not_in(mygo: Any, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "create", str(config), "--tenant", "ada", "--groups", "legal,staff"]) == 0
    assert "ada is not in legal, staff" in capsys.readouterr().err
    mygo("tenants change", "ada", "--groups", "legal,staff")
    assert main(["keys", "create", str(config), "--tenant", "ada", "--groups", "legal,staff"]) == 0
    assert "is not in" not in capsys.readouterr().err


def test_rotate_show_revoke_list_audit(mygo: Any) -> None:
    key_id = id_of(mygo("keys create", "--tenant", "ada").strip())
    mygo("keys create", "--tenant", "bob")
    assert id_of(mygo("keys rotate", key_id, "--keep-old", "1h").strip()) == key_id
    assert "active" in mygo("keys show", key_id)
    assert "revoked" in mygo("keys revoke", key_id)
    lines = mygo("keys list").splitlines()
    assert (len(lines), lines[0].split()[:2]) == (3, ["id", "tenant"])
    (only,) = json.loads(mygo("keys list", "--tenant", "ada", "--json"))
    assert (only["id"], only["state"]) == (key_id, "revoked")
    actions = [record["action"] for record in json.loads(mygo("keys audit", "--json"))]
    assert actions == ["key.revoke", "key.rotate", "key.create", "key.create"]
    assert "shell:" in mygo("keys audit")


def test_tenants(mygo: Any) -> None:
    changed = json.loads(mygo("tenants change", "ada", "--weight", "2.5", "--tokens-per-minute", "100", "--json"))
    assert (changed["name"], changed["weight"], changed["limits"]["tokens_per_minute"]) == ("ada", 2.5, 100)
    assert "2.5" in mygo("tenants list")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["keys", "create", "--tenant", "a b"], "tenant"),
        (["keys", "show", "none"], "no such key"),
        (["keys", "revoke", "none"], "no such key"),
        (["keys", "create", "--tenant", "ada", "--queue", "-1"], "queue"),
        (["tenants", "change", "ada", "--weight", "0"], "weight"),
        (["tenants", "change", "ada", "--groups", "a b"], "groups"),
        (["keys", "create", "--tenant", "ada", "--groups", ","], "groups"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], words: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*arguments[:2], str(config), *arguments[2:]]) == 1
    printed = capsys.readouterr()
    assert (printed.out, words in printed.err) == ("", True)


def test_a_configuration_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "list", str(tmp_path / "none.yaml")]) == 1
    (tmp_path / "other.yaml").write_text("applications: []")
    assert main(["keys", "list", str(tmp_path / "other.yaml")]) == 1
    (tmp_path / "bad.yaml").write_text("applications: [{import_path: 'serve_app.app:build', args: {auth: {mod: keys}}}]")
    assert main(["keys", "list", str(tmp_path / "bad.yaml")]) == 1
    printed = capsys.readouterr()
    assert [words in printed.err for words in ("cannot be read", "one application", "auth.mod")] == [True] * 3


def test_a_note_where_keys_are_not_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"applications": [{"import_path": "serve_app.app:build", "args": {"data_dir": str(tmp_path)}}]}))
    assert main(["keys", "create", str(path), "--tenant", "ada"]) == 0
    printed = capsys.readouterr()
    assert "auth.mode is none" in printed.err
    assert id_of(printed.out.strip())


@pytest.mark.parametrize("arguments", [["keys"], ["keys", "create"], ["keys", "rotate", "c", "id", "--keep-old", "soon"], ["tenants", "x"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: mygo" in capsys.readouterr().err

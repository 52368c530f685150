"""A configuration file is checked at every level, Ray's keys and ours."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from serve_app.doctor import GRPC_SERVICER, IMPORT_PATH, check_file

ROOT = Path(__file__).parent.parent.parent


def serve_file(args: Any = None, **changes: Any) -> dict[str, Any]:
    """A good file, with changes at its top level and in the application's `args`."""
    application = {"name": "mygo", "route_prefix": "/", "import_path": IMPORT_PATH, "args": {} if args is None else args}
    return {"http_options": {"host": "127.0.0.1", "port": 8000}, "applications": [application], **changes}


def problems(tmp_path: Path, content: Any) -> list[str]:
    path = tmp_path / "config.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return check_file(path)


@pytest.mark.parametrize("name", ["config.yaml", "config.sim.yaml", "config.production.yaml", "config.gpu.yaml"])
def test_the_files_that_ship_are_well(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYGO_DATABASE_URL", "mysql+pymysql://127.0.0.1/mygo")
    monkeypatch.setenv("MYGO_VECTOR_URL", "milvus://127.0.0.1")
    assert check_file(ROOT / name) == []


def test_a_good_file(tmp_path: Path) -> None:
    assert problems(tmp_path, serve_file()) == []


@pytest.mark.parametrize("name", [f"{GRPC_SERVICER}s", "serve_app.grcp.add", "add", "serve_app.doctor.IMPORT_PATH", 7])
def test_a_servicer_that_is_none(tmp_path: Path, name: Any) -> None:
    named = {"grpc_servicer_functions": [GRPC_SERVICER, name]}
    line = problems(tmp_path, serve_file(grpc_options=named))[-1]
    assert line.startswith(f"grpc_options.grpc_servicer_functions{'[1]' if isinstance(name, str) else ''}")


def test_grpc_as_the_files_that_ship_have_it_ready(tmp_path: Path) -> None:
    content = re.sub(r"^# (grpc_options:|  )", r"\1", (ROOT / "config.sim.yaml").read_text(), flags=re.MULTILINE)
    assert yaml.safe_load(content)["grpc_options"] == {"port": 9000, "grpc_servicer_functions": [GRPC_SERVICER]}
    assert problems(tmp_path, content) == []


MISSPELT: list[tuple[dict[str, Any], str, str]] = [
    (serve_file(http_option={"host": "127.0.0.1"}), "http_option", "http_options"),
    (serve_file(http_options={"host": "127.0.0.1", "prot": 1}), "http_options.prot", "port"),
    (serve_file(logging_config={"encodin": "JSON"}), "logging_config.encodin", "encoding"),
    (serve_file(grpc_options={"prt": 1}), "grpc_options.prt", "port"),
    (serve_file(applications=[{"import_path": IMPORT_PATH, "nam": "x"}]), "applications[0].nam", "name"),
    (
        serve_file(applications=[{"import_path": IMPORT_PATH, "deployments": [{"name": "Ingress", "num_replica": 1}]}]),
        "applications[0].deployments[0].num_replica",
        "num_replicas",
    ),
    (serve_file({"ingres": {}}), "applications[0].args.ingres", "ingress"),
    (serve_file({"llm": {"engine": {"type": "simulated", "kv_block": 1}}}), "applications[0].args.llm.engine.kv_block", "kv_blocks"),
]


@pytest.mark.parametrize(("content", "key", "meant"), MISSPELT, ids=[key for _, key, _ in MISSPELT])
def test_a_misspelt_key_is_named_at_every_level(tmp_path: Path, content: dict[str, Any], key: str, meant: str) -> None:
    (line,) = [line for line in problems(tmp_path, content) if line.startswith(f"{key}: unknown key")]
    assert meant in line


WRONG: list[tuple[Any, str]] = [
    (serve_file(http_options={"host": "127.0.0.1", "port": "x"}), "http_options.port"),
    (serve_file(http_options={"host": "127.0.0.1", "port": 80000}), "http_options.port"),
    (serve_file(http_options={"host": "127.0.0.1", "port": 0}), "http_options.port"),
    (serve_file(http_options="127.0.0.1"), "http_options"),
    (serve_file(http_options=["127.0.0.1"]), "http_options"),
    (serve_file(http_options=None), "http_options"),
    (serve_file(http_options={"host": "0.0.0.0"}), "http_options.host"),  # noqa: S104
    (serve_file(http_options={}), "http_options.host"),
    (serve_file({"ingress": {"replicas": 0}}), "applications[0].args.ingress.replicas"),
    (serve_file("llm"), "applications[0].args"),
    (serve_file({"llm": {"model": {"source": "./no/such/model"}}}), "applications[0].args.llm.model.source"),
    (serve_file(applications=[]), "applications"),
    (serve_file(applications=None), "applications"),
    (serve_file(applications={"name": "x"}), "applications"),
    (serve_file(applications=["x"]), "applications"),
    (serve_file(applications=[{"import_path": "serve_app.app:biuld"}]), "applications"),
    (serve_file(applications=[{"import_paht": IMPORT_PATH}]), "applications[0].import_paht"),
]


@pytest.mark.parametrize(("content", "key"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_value_is_named(tmp_path: Path, content: Any, key: str) -> None:
    assert any(line.startswith(key) for line in problems(tmp_path, content)), problems(tmp_path, content)


def test_a_directory_with_a_model_is_taken(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert problems(tmp_path, serve_file({"llm": {"model": {"source": str(tmp_path)}}})) == []


@pytest.mark.parametrize("content", ["", "[]", "- a", "just a word", "7"])
def test_a_file_that_is_no_mapping(tmp_path: Path, content: str) -> None:
    (line,) = problems(tmp_path, content)
    assert "must be a mapping" in line


@pytest.mark.parametrize("content", ["a: [", "a: b: c", "\t- x", "!!python/object:os.system {}"])
def test_a_file_that_is_no_yaml(tmp_path: Path, content: str) -> None:
    (line,) = problems(tmp_path, content)
    assert "is not YAML" in line
    assert "\n" not in line


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, "http_options: {host: 127.0.0.1}\napplications: []\nhttp_options: {port: 1}\n")
    assert "the key http_options stands twice" in line
    assert "line 3" in line


def test_what_readme_shows_can_be_used(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        assert problems(tmp_path, serve_file(yaml.safe_load(block))) == []


def test_what_should_be_a_list(tmp_path: Path) -> None:
    where = "applications[0].args.retrieval.groups.staff: got"
    (line,) = problems(tmp_path, serve_file({"retrieval": {"groups": {"staff": "alice"}}}))
    assert line == f"{where} 'alice'; input should be a list, for example [alice]"
    (line,) = problems(tmp_path, serve_file({"retrieval": {"groups": {"staff": {"alice": 1}}}}))
    assert line == f"{where} {{'alice': 1}}; input should be a list, for example [a, b]"


def test_an_unknown_key_of_a_tenant(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, serve_file({"cache": {"tenants": {"acme": {"tll_s": 1}}}}))
    assert line.startswith("applications[0].args.cache.tenants.acme.tll_s: unknown key; allowed here: audit_share, ")
    assert line.endswith("; did you mean ttl_s?")


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: \xff\xfe")
    (line,) = check_file(path)
    assert "is not YAML" in line


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert check_file(tmp_path / "none.yaml") == [f"{tmp_path}/none.yaml: cannot be read (No such file or directory)"]
    assert "cannot be read" in check_file(tmp_path)[0]


KEYS = st.sampled_from(["host", "name", "deployments", "logging_config", "llm", "engine", "type"]) | st.integers()
SCALARS = st.none() | st.booleans() | st.integers() | st.text("ab/:", max_size=3) | st.just("127.0.0.1")
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=6)
APPLICATION = st.fixed_dictionaries({"import_path": st.just(IMPORT_PATH)}, optional={"args": VALUES, "deployments": VALUES, "name": VALUES})
CONTENTS = st.fixed_dictionaries(
    {"applications": VALUES | st.lists(VALUES | APPLICATION, max_size=2)}, optional={"http_options": VALUES, "logging_config": VALUES}
)


@given(content=CONTENTS)
def test_any_file_gives_a_list_of_problems(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    found = problems(tmp_path_factory.getbasetemp(), content)
    assert all(isinstance(line, str) and line for line in found)

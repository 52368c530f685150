"""What a configuration may say, and how its errors read."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from serve_app.config import AppConfig, load_config, require_safe_exposure
from serve_app.errors import ConfigError

CANARY = "canary_7f3a9"


def problems(args: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(args)
    assert caught.value.__cause__ is None
    return str(caught.value)


def test_nothing_is_required() -> None:
    config = load_config({})
    assert config == AppConfig()
    assert (config.auth.mode, config.llm.engine.type, config.secret) == ("none", "vllm", None)


def test_the_tree_is_frozen() -> None:
    config = load_config({})
    with pytest.raises(ValidationError):
        config.ingress.replicas = 2


def test_the_engine_is_chosen_by_its_type() -> None:
    config = load_config({"llm": {"engine": {"type": "simulated", "kv_blocks": 7}}})
    assert (config.llm.engine.type, config.llm.engine.model_dump()["kv_blocks"]) == ("simulated", 7)


UNKNOWN_KEYS = [
    ({"ingres": {}}, "ingres", ["ingress", "llm", "cache"]),
    ({"ingress": {"replica": 1}}, "ingress.replica", ["replicas", "max_body_bytes"]),
    ({"cache": {"semantic": {"min_probabilty": 1}}}, "cache.semantic.min_probabilty", ["min_probability", "top_k"]),
    ({"llm": {"engine": {"type": "simulated", "blocks": 1}}}, "llm.engine.blocks", ["kv_blocks", "block_size"]),
    ({"llm": {"engine": {"type": "vllm", "kv_blocks": 1}}}, "llm.engine.kv_blocks", ["args", "env", "type"]),
    ({"llm": {"engine": {"type": "vllm", "args": {"max_len": 1}}}}, "llm.engine.args.max_len", ["max_model_len", "extra"]),
    ({"retrieval": {"chunk": 1}}, "retrieval.chunk", ["chunk_tokens"]),
    ({"embedding": {"model": "x"}}, "embedding.model", ["name", "source"]),
]


@pytest.mark.parametrize(("args", "key", "allowed"), UNKNOWN_KEYS, ids=[key for _, key, _ in UNKNOWN_KEYS])
def test_an_unknown_key_is_named_with_those_that_are_allowed(args: dict[str, Any], key: str, allowed: list[str]) -> None:
    message = problems(args)
    assert message.startswith(f"{key}: unknown key; allowed here: ")
    assert all(name in message for name in allowed)


WRONG_VALUES = [
    ({"ingress": {"replicas": 0}}, "ingress.replicas", "0", "greater than or equal to 1"),
    ({"ingress": {"max_body_bytes": "many"}}, "ingress.max_body_bytes", "'many'", "integer"),
    ({"ingress": 5}, "ingress", "5", "dictionary"),
    ({"cache": {"semantic": {"min_probability": 1.5}}}, "cache.semantic.min_probability", "1.5", "less than 1"),
    ({"cache": {"ttl_s": float("nan")}}, "cache.ttl_s", "nan", "finite"),
    ({"cache": {"semantic": {"top_k": 2}}}, "cache.semantic", "2", "max_verified must not be more than top_k"),
    ({"cache": {"soft_ttl_s": 9, "ttl_s": 9}}, "cache", "9", "soft_ttl_s must be less than ttl_s"),
    ({"cache": {"soft_ttl_s": 9, "tenants": {"a": {"ttl_s": 5}}}}, "cache", "5", "cache.tenants.a: soft_ttl_s must be less"),
    ({"cache": {"tenants": {"a b/c": {}}}}, "cache.tenants.a b/c", "'a b/c'", "match pattern"),
    ({"cache": {"database_url": "postgresql://x"}}, "cache.database_url", "a secret", "sqlite:, mysql+pymysql:"),
    ({"cache": {"vector_url": "milvu://x"}}, "cache.vector_url", "a secret", "milvus:"),
    ({"retrieval": {"index": {"url": "milvu://x"}}}, "retrieval.index.url", "a secret", "milvus:"),
    ({"auth": {"mode": "keyss"}}, "auth.mode", "'keyss'", "'none' or 'keys'"),
    ({"auth": {"mode": "keys", "open_to_all": True}}, "auth", "open_to_all is for mode none", "mode"),
    ({"auth": {"database_url": "postgres:"}}, "auth.database_url", "a secret", "sqlite:"),
    ({"auth": {"grace_s": 1}}, "auth.grace_s", "1", "5"),
    ({"llm": {"engine": {"type": "vlm"}}}, "llm.engine", "vlm", "'vllm', 'simulated'"),
    ({"llm": {"engine": {"args": {}}}}, "llm.engine", "{'args': {}}", "type"),
    ({"llm": {"engine": {"type": "simulated", "kv_blocks": 0}}}, "llm.engine.kv_blocks", "0", "greater than or equal to 1"),
    ({"llm": {"engine": {"type": "vllm", "args": {"dtype": "int"}}}}, "llm.engine.args.dtype", "'int'", "'bfloat16'"),
    ({"llm": {"engine": {"type": "vllm", "args": {"extra": {"block_size": 1}}}}}, "llm.engine.args", "block_size", "field of its own"),
    (
        {"llm": {"engine": {"type": "vllm", "args": {"extra": {"kv_events_config": 1}}}}},
        "llm.engine.args",
        "kv_events",
        "set by the replica",
    ),
    ({"llm": {"replicas": {"min": 3, "max": 2}}}, "llm.replicas", "3", "at least min"),
    ({"retrieval": {"chunk_tokens": 20, "chunk_overlap_tokens": 11}}, "retrieval", "11", "at most half"),
    ({"embedding": {"threads": 0}}, "embedding.threads", "0", "greater than or equal to 1"),
    ([], "args", "[]", "dictionary"),
]


@pytest.mark.parametrize(("args", "key", "got", "allowed"), WRONG_VALUES, ids=[f"{key}-{got}" for _, key, got, _ in WRONG_VALUES])
def test_a_wrong_value_is_named_with_what_is_allowed(args: Any, key: str, got: str, allowed: str) -> None:
    message = problems(args)
    assert message.startswith(f"{key}: got ")
    assert got in message
    assert allowed in message
    assert len(message.splitlines()) == 1
    assert "value error" not in message


def test_every_problem_has_a_line() -> None:
    lines = problems({"ingress": {"replicas": 0}, "cache": {"x": 1}, "nonsense": 1}).splitlines()
    assert {line.split(":")[0] for line in lines} == {"ingress.replicas", "cache.x", "nonsense"}


def test_a_long_value_is_cut() -> None:
    assert len(problems({"ingress": {"replicas": "x" * 10_000}})) < 500


def test_a_secret_is_not_shown() -> None:
    config = load_config({"secret": CANARY})
    assert CANARY not in repr(config) + str(config.model_dump()) + config.model_dump_json()
    assert config.secret is not None
    assert config.secret.get_secret_value() == CANARY


@pytest.mark.parametrize(
    "args",
    [
        {"secret": [CANARY]},
        {"secret": {"value": CANARY}},
        {"secrets": CANARY},
        {"retrieval": {"index": {"url": CANARY}}},
        {"retrieval": {"indices": {"url": CANARY}}},
        {"auth": {"secret": CANARY}},
        {"secret": CANARY, "ingress": {"replicas": 0}},
        {"secret": f"env:{CANARY}"},
        {"cache": {"replicas": 2, "vector_url": CANARY}},
        {"cache": [{"database_url": CANARY}]},
    ],
)
def test_an_error_does_not_show_a_secret(args: dict[str, Any]) -> None:
    assert CANARY not in problems(args)


def test_a_secret_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYGO_TEST_URL", "milvus://127.0.0.1")
    config = load_config({"cache": {"vector_url": "env:MYGO_TEST_URL"}})
    assert config.cache.vector_url.get_secret_value() == "milvus://127.0.0.1"
    monkeypatch.setenv("MYGO_TEST_URL", "")
    assert "environment variable MYGO_TEST_URL is not set" in problems({"cache": {"vector_url": "env:MYGO_TEST_URL"}})
    assert "hidden" not in problems({"cache": {"vector_url": "env:mysql://user:hidden@host"}})


SERVERS = {"database_url": "mysql+pymysql://127.0.0.1/x", "vector_url": "milvus://127.0.0.1"}


@pytest.mark.parametrize("embedded", [{"database_url": None}, {"database_url": "sqlite:///x"}, {"vector_url": "faiss:"}])
def test_several_processes_cannot_share_embedded_stores(embedded: dict[str, Any]) -> None:
    assert load_config({"cache": {**SERVERS, "replicas": 2}}).cache.replicas == 2
    assert "replicas must be 1 unless" in problems({"cache": {**SERVERS, **embedded, "replicas": 2}})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["llm", "engine", "type", "args", "replicas", "min", "cache", "semantic", "auth", "x"]), inner, max_size=4
            )
        ),
        max_leaves=10,
    )
)
def test_any_value_is_a_configuration_or_an_error_with_a_key(args: Any) -> None:
    try:
        config = load_config(args)
    except ConfigError as error:
        assert all(": " in line for line in str(error).splitlines())  # noqa: PT017  # not every value is refused
    else:
        assert isinstance(config, AppConfig)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_without_keys_loopback_addresses_are_allowed(host: str) -> None:
    require_safe_exposure(AppConfig(), host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "192.168.1.1", "example.org", "localhost.example.org", "", None])  # noqa: S104
def test_without_keys_no_other_machine_may_reach_the_application(host: str | None) -> None:
    with pytest.raises(ConfigError, match=r"^http_options\.host: got .*127\.0\.0\.1"):
        require_safe_exposure(AppConfig(), host)


@pytest.mark.parametrize("auth", [{"mode": "keys"}, {"mode": "none", "open_to_all": True}])
def test_with_keys_or_if_it_is_said_twice_any_address_is_allowed(auth: dict[str, Any]) -> None:
    require_safe_exposure(load_config({"auth": auth}), "0.0.0.0")  # noqa: S104

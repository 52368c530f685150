"""What a bad configuration is told, and who has which rules."""

from typing import Any

import pytest

from serve_app.config import load_config
from serve_app.content.config import ContentConfig
from serve_app.content.factory import make_content
from serve_app.errors import ConfigError
from tests.serve_app.recorded import RecordedMetrics

WORDS: dict[str, Any] = {"name": "a", "words": ["x"]}


def rules(*each: dict[str, Any], **content: Any) -> dict[str, Any]:
    return {"content": {"all": {"rules": list(each)}, **content}}


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (rules({"name": "a", "patterns": ["x", "(y"]}), r"content\.all\.rules\.0\.patterns\.1: got '\(y'; missing \): \(y"),
        (rules({"name": "a", "patterns": [r"(x)\1"]}), r"content\.all\.rules\.0\.patterns\.0: .*invalid escape sequence"),
        (
            rules(WORDS, {"name": "b", "patterns": ["x+"]}),
            r"content\.all\.rules\.1\.patterns\.0: it may match any number of characters, more than",
        ),
        (rules({"name": "b", "patterns": ["x{600}"]}), r"it may match 600 characters, more than content\.window, 512"),
        (rules({"name": "b", "words": ["ﬃ" * 10]}, window=16), r"content\.all\.rules\.0\.words\.0: it is longer than content\.window"),
        (rules({"name": "a", "patterns": ["x*"]}), "it matches nothing at all"),
        (rules({"name": "a"}), r"content\.all\.rules\.0: .*it needs words or patterns"),
        (rules({"name": "a", "words": ["\u200b"]}), "it has no character that is seen"),
        (rules({"name": "a", "words": [" x"]}), r"content\.all\.rules\.0\.words\.0"),
        (rules({"name": "A b", "words": ["x"]}), r"content\.all\.rules\.0\.name"),
        (rules({"name": "moderation", "words": ["x"]}), r"content\.all\.rules\.0\.name: .*what the moderation model is called"),
        (rules({**WORDS, "action": "drop"}), r"content\.all\.rules\.0\.action"),
        (rules({**WORDS, "look_alikes": "some"}), r"content\.all\.rules\.0\.look_alikes"),
        (
            rules({**WORDS, "actoin": "mask"}),
            r"content\.all\.rules\.0\.actoin: unknown key; allowed here: action, .*; did you mean action\?",
        ),
        (rules(WORDS, WORDS), "two rules have one name"),
        (rules(WORDS, tenants={"acme": {"rules": [WORDS]}}), r"content\.tenants\.acme\.rules: two rules for it are called a"),
        (rules(tenants={"no name": {}}), r"content\.tenants\.no name"),
        (rules(tenants={"acme": {"moderated": True}}), r"content\.tenants\.acme\.moderated: it needs content\.moderator"),
        (rules(moderator={"url": "ftp://x"}), r"content\.moderator\.url: got a secret"),
        (rules(moderator={"kye": "x"}), r"content\.moderator\.kye: unknown key; allowed here: .*; did you mean key\?"),
    ],
)
def test_a_bad_configuration_names_the_key(args: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_config(args)


def test_a_moderators_key_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(rules(moderator={"key": ["canary"]}))
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigError, match="may match") as caught:
        load_config(rules({"name": "a", "patterns": ["x+"]}, moderator={"key": "canary"}))
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(load_config(rules(moderator={"key": "canary"})))


def content(**fields: Any) -> ContentConfig:
    return ContentConfig.model_validate(fields)


def test_without_rules_there_is_nothing() -> None:
    assert make_content(ContentConfig(), RecordedMetrics()) is None
    assert make_content(content(moderator={}, tenants={"acme": {}}), RecordedMetrics()) is None


def test_a_tenants_rules_come_on_top_of_those_of_all() -> None:
    config = content(all={"rules": [WORDS], "moderated": True}, tenants={"acme": {"rules": [{"name": "b", "words": ["y"]}]}}, moderator={})
    assert [rule.name for rule in config.of("acme").rules] == ["a", "b"]
    assert [rule.name for rule in config.of("other").rules] == ["a"]
    assert (config.of("acme").moderated, config.of("other").moderated) == (True, True)
    assert content(all={"moderated": True}, tenants={"x": {"moderated": False}}, moderator={}).of("x").moderated is False


def fingerprint(**fields: Any) -> str:
    made = make_content(content(**fields), RecordedMetrics())
    assert made is not None
    assert made.everybody is not None
    return made.everybody.fingerprint


def test_the_fingerprint_is_of_what_answers_pass() -> None:
    same = {"rules": [{**WORDS, "where": "answer"}]}
    assert fingerprint(all=same) == fingerprint(
        all={"rules": [{**WORDS, "name": "other"}, {"name": "p", "where": "prompt", "words": ["y"]}]}
    )
    others = [
        fingerprint(all={"rules": [{**WORDS, "action": "mask"}]}),
        fingerprint(all={"rules": [{**WORDS, "words": ["x", "y"]}]}),
        fingerprint(all={"rules": [{**WORDS, "patterns": ["y"]}]}),
        fingerprint(all={"rules": [{**WORDS, "look_alikes": "all"}]}),
        fingerprint(all={**same, "moderated": True}, moderator={}),
        fingerprint(all={**same, "moderated": True}, moderator={"model": "m"}),
    ]
    assert len({fingerprint(all=same), *others}) == 7
    assert fingerprint(all={"rules": [{**WORDS, "where": "prompt"}]}) == ""
    assert fingerprint(all={"moderated": True}, moderator={"answers": False}) == ""

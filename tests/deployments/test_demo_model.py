"""The model that ships with the project: its files, its tokenizer, and what it answers."""

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.demo_model import MODEL_DIR, QUESTIONS
from deployments.demo_model.data import OffTopic, load_facts

transformers = pytest.importorskip("transformers")

MAX_BYTES = 40 * 1024 * 1024


@cache
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(MODEL_DIR)


@cache
def answers(questions: tuple[str, ...]) -> list[str]:
    from deployments.demo_model.evaluate import Answerer, ask

    return Answerer().answers([ask(question) for question in questions])


def rendered(*messages: dict[str, Any], add_generation_prompt: bool = False) -> str:
    return str(tokenizer().apply_chat_template(list(messages), tokenize=False, add_generation_prompt=add_generation_prompt))


def questions() -> list[dict[str, str]]:
    return [json.loads(line) for line in QUESTIONS.read_text().splitlines()]


def test_the_folder_is_small() -> None:
    files = [path for path in MODEL_DIR.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES


def test_the_configuration_suits_the_engines() -> None:
    config = transformers.AutoConfig.from_pretrained(MODEL_DIR)
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.max_position_embeddings >= 8192
    assert config.head_dim == 64
    assert config.vocab_size == len(tokenizer())


def test_every_place_names_the_same_end_token() -> None:
    generation = transformers.GenerationConfig.from_pretrained(MODEL_DIR)
    config = transformers.AutoConfig.from_pretrained(MODEL_DIR)
    assert tokenizer().eos_token == "<|end|>"
    assert tokenizer().bos_token is None
    assert generation.eos_token_id == config.eos_token_id == tokenizer().eos_token_id
    assert generation.pad_token_id == config.pad_token_id == tokenizer().pad_token_id


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = tokenizer().encode(text, add_special_tokens=False)
    assert tokenizer().decode(ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "  two  spaces ", "naïve café", "缓存", "👩‍👩‍👧", "\x00\x7f", "a<|end|>b", "tab\tand\r\nlines"]
)
def test_awkward_texts_survive_the_tokenizer(text: str) -> None:
    assert tokenizer().decode(tokenizer().encode(text)) == text


def test_the_tokenizer_is_fast_and_adds_nothing() -> None:
    assert tokenizer().is_fast
    assert tokenizer().encode("cache") == tokenizer().encode("cache", add_special_tokens=False)


def test_the_template_marks_each_message() -> None:
    text = rendered({"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi"}, add_generation_prompt=True)
    assert text == "<|system|>\nBe short.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n"


def test_a_developer_is_a_system() -> None:
    assert rendered({"role": "developer", "content": "x"}) == rendered({"role": "system", "content": "x"})


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool"])
def test_each_role_is_one_token(role: str) -> None:
    assert len(tokenizer().encode(f"<|{role}|>")) == 1
    assert rendered({"role": role, "content": "x"}) == f"<|{role}|>\nx<|end|>\n"


def test_content_may_be_a_list_of_parts() -> None:
    parts = [{"type": "text", "text": "A document."}, {"type": "text", "text": "What is a cache?"}]
    assert rendered({"role": "user", "content": parts}) == rendered({"role": "user", "content": "A document.\nWhat is a cache?"})


def test_content_may_be_null() -> None:
    assert rendered({"role": "assistant", "content": None}) == "<|assistant|>\n<|end|>\n"


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(Exception, match="unknown role"):
        rendered({"role": "captain", "content": "x"})


def test_a_longer_conversation_begins_with_the_shorter_one() -> None:
    """What prefix caching lives from."""
    first = [{"role": "user", "content": "What is a cache?"}]
    turn = {"role": "assistant", "content": "A store."}
    prompt = tokenizer().encode(rendered(*first, add_generation_prompt=True))
    assert tokenizer().encode(rendered(*first, turn))[: len(prompt)] == prompt


def test_facts_are_many_and_distinct() -> None:
    facts = load_facts()
    phrasings = [question for fact in facts for question in (*fact.questions, *filter(None, [fact.held_out]))]
    assert len({fact.answer for fact in facts}) == len(facts) >= 250
    assert len({question.lower() for question in phrasings}) == len(phrasings)
    assert all(3 <= len(fact.questions) + bool(fact.held_out) <= 5 for fact in facts)


def test_listed_questions_agree_with_the_facts() -> None:
    known = {fact.id: fact for fact in load_facts()}
    assert len(questions()) >= 200
    for row in questions():
        assert row["question"] in known[row["id"]].questions
        assert row["answer"] == known[row["id"]].answer


def test_listed_questions_are_answered_word_for_word() -> None:
    sample = questions()[::6]
    found = answers(tuple(row["question"] for row in sample))
    assert found == [row["answer"] for row in sample]


def test_other_questions_are_refused() -> None:
    """Of questions that training has not shown; so small a model is not perfect."""
    off_topic = OffTopic()
    found = answers(tuple(off_topic.held_out()[::9]))
    assert found.count(off_topic.refusal) >= 0.85 * len(found)

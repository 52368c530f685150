"""How the demo model is taught to read documents: texts, packing, and the heads that are set by hand."""

import copy
import json
import random
from functools import cache
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from deployments.demo_model import DOCUMENTS, MODEL_DIR  # noqa: E402
from deployments.demo_model.data import LABEL_LETTERS, NOT_SAID, OffTopic, load_facts  # noqa: E402
from deployments.demo_model.growing import OLD_WIDTH, WIDTH, grown, hold  # noqa: E402
from deployments.demo_model.packing import TokenTree, batch, rows  # noqa: E402
from deployments.demo_model.passages import Librarian, Shares, Size  # noqa: E402
from deployments.demo_model.prose import own_sentences, sentences, telling  # noqa: E402
from deployments.demo_model.reading import Ask, Reading, blocks, rank_line, tree  # noqa: E402
from deployments.demo_model.samples import Sampler  # noqa: E402
from deployments.demo_model.scrambled import Scrambled, content  # noqa: E402
from deployments.demo_model.tokenizer import render  # noqa: E402
from retrieval import prompt  # noqa: E402
from retrieval.documents import Chunk, SearchHit  # noqa: E402

WORDS = ["water", "lease", "harbour", "silver", "kettle", "prefix", "gateway", "socket"]


def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(MODEL_DIR)


def librarian(seed: int) -> Librarian:
    return Librarian(load_facts(), OffTopic(), WORDS, random.Random(seed))


def project() -> list[dict[str, str]]:
    return [json.loads(line) for line in DOCUMENTS.read_text().splitlines()]


def test_the_layout_is_that_of_the_retrieval_tier() -> None:
    hits = [
        SearchHit(Chunk(f"d{number}#0", f"d{number}", 0, text), 1 - number / 10) for number, text in enumerate(("One.", "Two.\n\nThree."))
    ]
    names = prompt.labels(hits)
    assert blocks([hit.chunk.text for hit in hits], names) + rank_line(names) + "\n" == prompt.document_text(hits)
    assert LABEL_LETTERS == prompt.ALPHABET
    assert all(len(name) == prompt.LABEL_CHARS for name in names)


def test_a_tree_is_a_prompt_cut_where_the_question_begins() -> None:
    rng = random.Random(1)
    reading = Reading(["A kettle is hot.", "A lake is deep."], [Ask("How deep is a lake?", "A lake is deep.", 1)])
    text = tree(reading, [{"role": "system", "content": "Be brief."}], rng)
    label = text.trunk[: text.trunk.index("]\nA lake")].rsplit("[", 1)[1]
    whole = text.trunk + text.branches[0].text
    user = whole.split("<|user|>\n")[1].split("<|end|>")[0]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": user}]
    assert whole == render([*messages, {"role": "assistant", "content": f"A lake is deep. [{label}]"}])
    encode = tokenizer().encode
    assert encode(text.trunk) + encode(text.branches[0].text) == encode(whole)


@pytest.mark.parametrize("seed", range(5))
def test_questions_have_their_answer_in_the_document_that_supports_it(seed: int) -> None:
    drawn = librarian(seed)
    readings = [drawn.reading(Size(3, 3, 5), Shares(0.2, 0.1, 0.1)) for _ in range(20)]
    supported = [(ask, reading) for reading in readings for ask in reading.asks if ask.support is not None]
    assert len(supported) > 30
    assert all(ask.answer in reading.documents[ask.support] for ask, reading in supported if ask.support is not None)
    others = [(ask, reading) for reading in readings for ask in reading.asks if ask.support is None]
    assert any(ask.answer == NOT_SAID for ask, _ in others)
    assert not any(ask.answer in text for ask, reading in others for text in reading.documents)


@pytest.mark.parametrize("seed", range(5))
def test_scrambled_questions_name_words_of_their_sentence_alone(seed: int) -> None:
    scrambled = Scrambled(WORDS, random.Random(seed))
    for _ in range(20):
        reading = scrambled.reading(3, 2, 4)
        for ask in reading.asks:
            if ask.support is not None:
                elsewhere = " ".join(reading.documents).replace(ask.answer, "")
                telling_words = set(content(ask.answer)) - set(content(elsewhere.replace(".", "")))
                assert telling_words & set(ask.question.rstrip("?").split())


def test_a_known_answer_behind_documents_names_the_one_that_holds_it() -> None:
    sampler = Sampler(load_facts(), OffTopic(), random.Random(0))
    answer = load_facts()[0].answer
    shown = f"[aaaaaa]\nA lake is deep.\n\n[bbbbbb]\nSo it is. {answer}\n\n"
    assert sampler.from_documents(answer, shown) == f"{answer} [bbbbbb]"
    assert sampler.from_documents(answer, "[aaaaaa]\nA lake is deep.\n\n") == answer
    assert sampler.from_documents(OffTopic().refusal, shown) == NOT_SAID


def tiny_model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2
    )
    return transformers.LlamaForCausalLM(config).eval()


def test_a_branch_in_a_row_is_computed_as_if_it_were_alone() -> None:
    first = TokenTree(([1, 2, 3], [0.0] * 3), [([4, 5], [0.0, 1.0]), ([6, 7, 8], [0.0, 1.0, 1.0])])
    second = TokenTree(([9, 10], [0.0, 1.0]), [([11, 12], [0.0, 1.0])])
    (row,) = rows([first, second], 32)
    shown = batch([row], 32)
    model = tiny_model()
    with torch.inference_mode():
        packed = model(input_ids=shown.ids, position_ids=shown.positions, attention_mask=shown.mask).logits[0]
        for alone, places in (([1, 2, 3, 4, 5], [3, 4]), ([1, 2, 3, 6, 7, 8], [5, 6, 7]), ([9, 10, 11, 12], [10, 11])):
            expected = model(torch.tensor([alone])).logits[0, -len(places) :]
            torch.testing.assert_close(packed[places], expected)


def test_no_token_is_predicted_from_another_text() -> None:
    (row,) = rows([TokenTree(([1, 2], [1.0, 1.0]), [([3, 4], [1.0, 1.0])]), TokenTree(([5, 6], [1.0, 1.0]), [])], 16)
    shown = batch([row], 6)
    assert shown.weights.tolist() == [[1.0, 0.0, 1.0, 0.0, 1.0]]
    assert shown.targets.tolist() == [[2, 3, 4, 5, 6]]


def test_a_text_that_is_longer_than_a_row_is_left_out() -> None:
    assert [row.ids for row in rows([TokenTree(([1] * 9, [0.0] * 9), []), TokenTree(([2], [0.0]), [])], 8)] == [[2]]


@cache
def grown_model() -> Any:
    """From one as wide as what `train.py` makes, with embeddings as long, and nothing learnt."""
    from deployments.demo_model.train import new_model

    torch.manual_seed(0)
    model = new_model(tokenizer())
    with torch.no_grad():
        model.model.embed_tokens.weight.div_(model.model.embed_tokens.weight.norm(dim=1, keepdim=True))
    return grown(model, tokenizer())


def test_a_head_set_by_hand_looks_at_the_token_before() -> None:
    model = grown_model()
    assert model.config.hidden_size == WIDTH
    model.set_attn_implementation("eager")
    ids = [random.Random(0).randrange(6, 3000) for _ in range(40)]
    with torch.inference_mode():
        seen = model(torch.tensor([ids]), output_attentions=True).attentions[0][0, 0]
    assert min(seen[place, place - 1].item() for place in range(1, 40)) > 0.9


def test_what_is_held_has_no_gradients() -> None:
    model = copy.deepcopy(grown_model())
    hold(model)
    model(torch.tensor([[7, 8, 9]]), labels=torch.tensor([[7, 8, 9]])).loss.backward()
    assert model.model.embed_tokens.weight.grad is None
    assert not model.model.layers[2].mlp.down_proj.weight.grad[OLD_WIDTH:].any()
    assert model.model.layers[2].mlp.down_proj.weight.grad[:OLD_WIDTH].any()


def test_the_collection_is_not_what_the_model_was_trained_on() -> None:
    listed = project()
    assert len(listed) >= 200
    assert len({row["id"] for row in listed}) == len({row["question"] for row in listed}) == len(listed)
    shown = {*own_sentences(), *(sentence for fact in load_facts() for sentence in sentences(fact.answer))}
    assert not shown & {sentence for row in listed for sentence in sentences(row["text"])}
    assert not {question for fact in load_facts() for question in fact.questions} & {row["question"] for row in listed}


def test_each_question_of_the_collection_shares_words_with_its_document() -> None:
    assert all(telling(row["question"]) & telling(row["text"]) for row in project())

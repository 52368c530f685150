"""How the demo model is taught to read documents: texts, packing, guided heads."""

import json
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from deployments.demo_model import DOCUMENTS, MODEL_DIR  # noqa: E402
from deployments.demo_model.chapters import Chapters, spans  # noqa: E402
from deployments.demo_model.citing import Citation, project_cases, score  # noqa: E402
from deployments.demo_model.data import load_facts  # noqa: E402
from deployments.demo_model.guidance import HEADS, Guidance  # noqa: E402
from deployments.demo_model.lessons import Encoder, Guide, Piece, TokenTree  # noqa: E402
from deployments.demo_model.packing import batch, rows  # noqa: E402
from deployments.demo_model.passages import Librarian, Size  # noqa: E402
from deployments.demo_model.prose import own_sentences, sentences, telling  # noqa: E402
from deployments.demo_model.reading import Ask, Page, Reading, rank_line, tree  # noqa: E402
from deployments.demo_model.scrambled import Scrambled, content  # noqa: E402
from deployments.demo_model.tokenizer import render  # noqa: E402
from retrieval import prompt  # noqa: E402
from retrieval.documents import Chunk, SearchHit  # noqa: E402

WORDS = ["water", "lease", "harbour", "silver", "kettle", "prefix", "gateway", "socket"]
KETTLE, LAKE = "A kettle is hot.", "The lake is deep."
READING = Reading(
    [Page.of([KETTLE, LAKE], [" "]), Page.of(["Rain falls."], [])], [Ask("How deep is a lake?", 0, 1), Ask("What falls?", 1, 0)]
)


def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(MODEL_DIR)


def librarian(seed: int) -> Librarian:
    return Librarian(load_facts(), WORDS, random.Random(seed))


def project() -> list[dict[str, str]]:
    return [json.loads(line) for line in DOCUMENTS.read_text().splitlines()]


def test_the_layout_is_that_of_the_retrieval_tier() -> None:
    made = tree(READING, [], random.Random(1))
    shown = sorted(made.pages, key=lambda page: page.label)
    texts = [made.trunk[page.sentences[0][0] : page.sentences[-1][1]] for page in shown]
    names = [made.trunk[slice(*page.label)] for page in shown]
    hits = [SearchHit(Chunk(f"d{number}", 0, text), 1.0) for number, text in enumerate(texts)]
    expected = "".join(block.replace(name, own) for block, name, own in zip(prompt.blocks(hits), prompt.labels(hits), names, strict=True))
    assert made.trunk.removeprefix("<|user|>\n").startswith(expected)
    ranked = sorted(hits, key=lambda hit: prompt.ranking(hits).index(prompt.labels(hits)[hits.index(hit)]))
    assert prompt.ranking(hits) == rank_line([prompt.labels(hits)[hits.index(hit)] for hit in ranked]) + "\n"
    assert all(len(name) == prompt.LABEL_CHARS for name in names)


def test_a_tree_is_a_prompt_cut_where_the_question_begins() -> None:
    made = tree(READING, [{"role": "system", "content": "Be brief."}], random.Random(1))
    branch = made.branches[0]
    whole = made.trunk + branch.question + branch.answer
    user = whole.split("<|user|>\n")[1].split("<|end|>")[0]
    label = made.trunk[slice(*made.pages[0].label)]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": user}]
    assert whole == render([*messages, {"role": "assistant", "content": f"[{label}] {LAKE}"}])
    encode = tokenizer().encode
    assert encode(made.trunk) + encode(branch.question) + encode(branch.answer) == encode(whole)


@pytest.mark.parametrize("seed", range(5))
def test_an_answer_repeats_the_tokens_of_its_document(seed: int) -> None:
    encoder = Encoder(tokenizer(), random.Random(seed))
    drawn = librarian(seed)
    encoded = [encoder.tree(tree(drawn.reading(Size(3, 3, 4)), [], random.Random(seed))) for _ in range(30)]
    trees = [each for each in encoded if each.branches]
    assert len(trees) > 20
    for each in trees:
        path = each.trunk.ids
        for branch in each.branches:
            copies = [guide for guide in branch.guides if guide.head == "copy"]
            assert copies
            assert all((path + branch.ids)[guide.query + 1] == path[guide.targets[0]] for guide in copies)


def test_guides_name_the_label_and_the_beginning_of_the_sentence() -> None:
    names = tokenizer().convert_ids_to_tokens
    encoded = Encoder(tokenizer(), random.Random(0)).tree(made := tree(READING, [], random.Random(1)))
    ids = encoded.trunk.ids + encoded.branches[0].ids
    last = max(guide.query for guide in encoded.branches[0].guides)
    found = {guide.head: names(ids[guide.targets[0]]) for guide in encoded.branches[0].guides if guide.query == last}
    assert found["sentence"] == "ĠThe"
    assert made.trunk[slice(*made.pages[0].label)].startswith(found["label_first"])
    told = {told.readout: names(told.token) for told in encoded.branches[0].told if not told.readout.startswith("copied")}
    label, sentence = found["label_first"], found["sentence"]
    assert told == {"found_label": label, "found_sentence": sentence, "gathered_label": label, "gathered_sentence": sentence}
    telling = [guide for guide in encoded.branches[0].guides if guide.head.startswith("gather")]
    assert telling
    assert {names(ids[target]) for guide in telling for target in guide.targets} <= {"Ġdeep", "ake"}


@pytest.mark.parametrize("seed", range(5))
def test_scrambled_questions_name_words_of_their_sentence_alone(seed: int) -> None:
    scrambled = Scrambled(WORDS, random.Random(seed))
    for _ in range(20):
        reading = scrambled.reading(3, 2, 4)
        for ask in reading.asks:
            first, last = reading.pages[ask.page].sentences[ask.sentence]
            answer = reading.pages[ask.page].text[first:last]
            elsewhere = " ".join(page.text for page in reading.pages).replace(answer, "")
            telling_words = set(content(answer)) - set(content(elsewhere.replace(".", "")))
            assert telling_words & set(ask.question.rstrip("?").split())


def test_markdown_falls_into_sentences_and_what_stands_between_them() -> None:
    text = "## Kettles\n\nA kettle `boils`\nwater. It is hot.\n\n- **Tea** is next.\n- Rain\n\n| a | b |\n|---|---|\n\n1. Pour it."
    assert [text[first:last] for first, last in spans(text)] == [
        "Kettles",
        "A kettle `boils`\nwater.",
        "It is hot.",
        "**Tea** is next.",
        "Rain",
        "| a | b |",
        "|---|---|",
        "Pour it.",
    ]


@pytest.mark.parametrize("seed", range(5))
def test_questions_about_markdown_have_most_words_of_the_sentence_that_answers_them(seed: int) -> None:
    chapters, encoder = Chapters(WORDS, random.Random(seed)), Encoder(tokenizer(), random.Random(seed))
    readings = [reading for _ in range(60) if (reading := chapters.reading(3, 4)).asks]
    assert len(readings) >= 10  # some pieces have no whole sentences
    for reading in readings:
        said = {
            (number, at): page.text[slice(*span)] for number, page in enumerate(reading.pages) for at, span in enumerate(page.sentences)
        }
        for ask in reading.asks:
            shared = {place: len(telling(ask.question) & telling(text)) for place, text in said.items()}
            assert max(shared, key=lambda place: shared[place]) == (ask.page, ask.sentence)
    assert sum(len(encoder.tree(tree(reading, [], random.Random(seed))).branches) for reading in readings) > 20


def piece(ids: list[int], weights: list[float] | None = None, guides: tuple[Guide, ...] = ()) -> Piece:
    return Piece(ids, weights or [0.0] * len(ids), ["copy"] * len(ids), list(guides))


def small_model() -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50, hidden_size=256, head_dim=64, intermediate_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4
    )
    return transformers.LlamaForCausalLM(config).eval()


TREES = [
    TokenTree(piece([1, 2, 3]), [piece([4, 5]), piece([6, 7, 8])]),
    TokenTree(piece([9, 10]), [piece([11, 12], guides=(Guide("copy", 3, [0, 2]),))]),
]


def test_a_branch_in_a_row_is_computed_as_the_model_computes_it_alone() -> None:
    shown, model = batch(list(rows(TREES, 32))), small_model()
    guidance = Guidance(model)
    with torch.inference_mode():
        packed = model.lm_head(guidance.forward(shown)[0])[0]
        for alone, positions, places in (
            ([1, 2, 3, 4, 5], range(5), [3, 4]),
            ([1, 2, 3, 6, 7, 8], range(6), [5, 6, 7]),
            ([9, 10, 11, 12], range(4), [10, 11]),
        ):
            expected = model(torch.tensor([alone]), position_ids=torch.tensor([list(positions)])).logits[0, -len(places) :]
            torch.testing.assert_close(packed[places], expected, rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_guided_head_is_its_attention_on_the_targets() -> None:
    shown, model = batch(list(rows(TREES, 32))), small_model()
    guidance, (layer, head) = Guidance(model), HEADS["copy"]
    with torch.inference_mode():
        loss = guidance.forward(shown)[1]["copy"]
        model.set_attn_implementation("eager")
        seen = model(torch.tensor([[9, 10, 11, 12]]), output_attentions=True)
    attention = seen.attentions[layer][0, head, 3]
    torch.testing.assert_close(loss, -(attention[0] + attention[2]).log())


def test_no_token_is_predicted_from_another_text() -> None:
    shown = batch(
        list(rows([TokenTree(piece([1, 2], [1.0, 1.0]), [piece([3, 4], [1.0, 1.0])]), TokenTree(piece([5, 6], [1.0, 1.0]), [])], 16))
    )
    assert shown.weights.tolist() == [[1.0, 0.0, 1.0, 0.0, 1.0]]
    assert shown.targets.tolist() == [[2, 3, 4, 5, 6]]
    assert len(shown.kinds) == 3


def test_a_text_that_is_longer_than_a_row_is_left_out() -> None:
    assert [row.ids for row in rows([TokenTree(piece([1] * 9), []), TokenTree(piece([2]), [])], 8)] == [[2]]


def test_the_score_counts_what_is_cited_and_what_is_quoted() -> None:
    cases = [Citation([], "abcdef", 0, frozenset({"So."})), Citation([], "ghijkm", 1, frozenset({"Or so."}))]
    found = score(cases, lambda _: ["[abcdef] So.", "[abcdef] Or so."])
    assert (found.cited, found.quoted, found.by_place) == (0.5, 1.0, (1.0, 0.0))
    both = score(cases, lambda _: ["[abcdef][ghijkm] So.", "Or so."])
    assert both.cited == 0.0


def test_the_collection_is_not_what_the_model_was_trained_on() -> None:
    listed = project()
    assert len(listed) >= 200
    shown = {*own_sentences(), *(sentence for fact in load_facts() for sentence in sentences(fact.answer))}
    assert not shown & {sentence for row in listed for sentence in sentences(row["text"])}
    assert not {question for fact in load_facts() for question in fact.questions} & {row["question"] for row in listed}


def test_each_question_of_the_collection_shares_words_with_its_document() -> None:
    assert all(telling(row["question"]) & telling(row["text"]) for row in project())


def test_the_shipped_model_cites_the_document_that_shares_the_question_s_words() -> None:
    from deployments.demo_model.evaluate import Answerer

    cases = project_cases(3)[::4]
    found = score(cases, Answerer().answers)
    assert found.cited >= 0.9  # of all it is 0.96
    assert found.quoted >= 0.65  # of all it is 0.8

import re

from hypothesis import given
from hypothesis import strategies as st

from retrieval.citations import Citation, Citer

LABELS = ["aaaaaa", "bbbbbb", "cccccccccccc"]
PARTS = st.sampled_from(
    [
        "[aaaaaa]",
        "[bbbbbb, cccccccccccc]",
        "[zzzzzz]",
        "[aaaaaa;zzzzzz]",
        "[zzzzzz, aaaaaa, bbbbbb , cccccccccccc]",
        f"[{'aaaaaa,' * 6}bbbbbb]",
        "[",
        "]",
        "[aa",
        "aaaa]",
        " and ",
        "[1]",
        "\n",
        "[[bbbbbb]]",
    ]
)


def whole(text: str, labels: list[str] = LABELS) -> tuple[str, list[Citation]]:
    citer = Citer(labels)
    said, citations = citer.feed(text)
    return said + citer.end(), citations


def test_labels_become_numbers_in_the_order_of_the_answer() -> None:
    text, citations = whole("Bees hum [bbbbbb]. Ants walk [aaaaaa], and bees [bbbbbb].")
    assert text == "Bees hum [1]. Ants walk [2], and bees [1]."
    assert citations == [Citation(1, 1, 9), Citation(2, 0, 24), Citation(1, 1, 38)]


def test_several_labels_in_one_bracket() -> None:
    assert whole("Both [bbbbbb, cccccccccccc] [aaaaaa;bbbbbb].")[0] == "Both [1][2] [3][1]."


def test_what_is_no_label_stays() -> None:
    text = "See [1], [zzzzzz], [yyyyyy, zzzzzz], [link](x) and [aaaaa"
    assert whole(text) == (text, [])


def test_what_is_known_is_cited_beside_what_is_not() -> None:
    assert whole("So [zzzzzz, aaaaaa]") == ("So [zzzzzz][1]", [Citation(1, 0, 11)])


def test_a_text_that_stays_as_it_is_can_be_cited() -> None:
    citer = Citer(LABELS, None)
    assert citer.feed("So [bbbbbb, aaaaaa].") == ("So [bbbbbb, aaaaaa].", [Citation(1, 1, 3), Citation(2, 0, 3)])


def test_one_bracket_may_cite_every_document() -> None:
    many = [f"{letter}" * 6 for letter in "abcdefghijkmnpqrstuvwxyz"]
    text = f"All [{' ; '.join(many)}]."
    citer, said = Citer(many), ""
    for character in text:
        said += citer.feed(character)[0]
    assert said + citer.end() == whole(text, many)[0] == f"All {''.join(f'[{number}]' for number in range(1, len(many) + 1))}."


def test_a_citation_can_show_something_else() -> None:
    citer = Citer(LABELS, lambda citation: f"doc {citation.hit}")
    assert citer.feed("So [bbbbbb].")[0] == "So [doc 1]."


def test_text_that_cannot_become_a_label_is_not_held_back() -> None:
    citer = Citer(LABELS)
    assert citer.feed("So [bbb")[0] == "So "
    assert citer.feed("!")[0] == "[bbb!"
    assert citer.feed("[" + "a" * 300)[0] == "[" + "a" * 300


def test_no_text_makes_the_search_slow() -> None:
    for text in ("[" + "a" * 100_000, "[aaaaaa " * 20_000, "[" * 100_000, "[aaaaaa" + ",;" * 50_000):
        assert whole(text)[0] == text


@given(st.lists(PARTS, max_size=8).map("".join), st.data())
def test_the_pieces_do_not_matter(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    citer, said, citations = Citer(LABELS), "", []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        part, found = citer.feed(text[start:end])
        said += part
        citations += found
    said += citer.end()
    assert (said, citations) == whole(text)
    for citation in citations:
        assert re.compile(rf"\[{citation.number}\]").match(said, citation.at)

"""Labels for learning: the same, different, or not to be told."""

import pytest

from cache.embedders.fake import HashedWordsEmbedder
from cache.judge import AnswerJudge, answer_text

ANSWER = "A cache keeps the answers that were computed before so that they need not be computed again"


@pytest.fixture
def judge() -> AnswerJudge:
    return AnswerJudge(HashedWordsEmbedder())


@pytest.mark.parametrize(
    ("fresh", "same"),
    [
        (ANSWER, True),
        (f"  {ANSWER.lower()}. ", True),
        (f"{ANSWER} by anyone", True),
        ("Paris", False),
        (ANSWER.replace("need not", "need"), False),
        (f"{ANSWER} within 5 days", False),
        (ANSWER.replace("answers", "results").replace("keeps", "holds").replace("before", "earlier"), None),
    ],
)
def test_labels(judge: AnswerJudge, fresh: str, same: bool | None) -> None:
    assert judge.same(ANSWER, fresh) is same
    assert judge.same(fresh, ANSWER) is same


def test_of_what_the_encoder_does_not_see_whole_a_difference_counts_and_likeness_does_not() -> None:
    class Blind(HashedWordsEmbedder):
        def covers(self, texts: object) -> list[bool]:
            return [False, True]

    judge = AnswerJudge(Blind())
    assert judge.same(ANSWER, f"{ANSWER} by anyone") is None
    assert judge.same("one", "two") is False
    assert judge.same("one", "one.") is True


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'{"choices": [{"message": {"content": "x"}}]}', "x"),
        (b'{"choices": [{"text": "y"}]}', "y"),
        (b'{"choices": [{"message": {"content": null, "tool_calls": []}}]}', None),
        (b'{"choices": [{"message": {"content": " "}}]}', None),
        (b'{"choices": []}', None),
        (b"[]", None),
        (b"{", None),
    ],
)
def test_the_text_of_an_answer(answer: bytes, text: str | None) -> None:
    assert answer_text(answer) == text

import pytest

from cache.eligibility import is_time_sensitive

TIMELY = [
    "What time is it?",
    "What's the weather in Oslo?",
    "who won the game last night",
    "What is the latest version of Rust?",
    "What is the current president of France?",
    "Give me the news",
    "What is the price of gold?",
    "Is the shop still open?",
    "how many seats are left right now",
    "现在几点了",
    "今天有什么新闻",
    "北京天气怎么样",
    "最新的版本是多少",
]
TIMELESS = [
    "What is a cache?",
    "How do I know that it works?",
    "What is electric current?",
    "How do I print the current directory?",
    "Why is the sky blue?",
    "How many days are in a year?",
    "什么是缓存",
    "怎么重置密码",
]


@pytest.mark.parametrize("text", TIMELY)
def test_a_moving_time_is_noticed(text: str) -> None:
    assert is_time_sensitive(text)


@pytest.mark.parametrize("text", TIMELESS)
def test_other_questions_are_not_taken_for_it(text: str) -> None:
    assert not is_time_sensitive(text)

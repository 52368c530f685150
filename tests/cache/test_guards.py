"""Each guard by examples, and what holds for all of them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.guards.antonyms import Antonyms
from cache.guards.base import Guard
from cache.guards.cascade import GUARDS, first_refusal
from cache.guards.comparisons import Comparisons
from cache.guards.entities import Entities, SwappedNames
from cache.guards.identifiers import Identifiers
from cache.guards.near_identical import NearIdentical
from cache.guards.negation import Negation
from cache.guards.numbers import Numbers, Units
from cache.guards.order import Order
from cache.guards.person import Person
from cache.guards.quantifiers import Quantifiers
from cache.guards.question_type import QuestionType
from cache.guards.tense import Tense
from cache.guards.text import parse

REFUSED: list[tuple[Guard, str, str]] = [
    (Order(), "How can I teach my son chess?", "How can my son teach me chess?"),
    (Order(), "How long after eating can I swim?", "How long after swimming can I eat?"),
    (Order(), "Should I text him before he texts me?", "Should he text me before I text him?"),
    (Order(), "Why do I trust him?", "Why does he trust me?"),
    (Numbers(), "rent for 2 rooms", "rent for 3 rooms"),
    (Numbers(), "run 5 km", "run 5 miles"),
    (Numbers(), "Python 3.1", "Python 3.10"),
    (Numbers(), "1+1", "21+1"),
    (Numbers(), "what is 6*2", "what is 6/2"),
    (Numbers(), "how cold is -5", "how cold is 5"),
    (Numbers(), "open at 7 am", "open at 7 pm"),
    (Numbers(), "2 dozen eggs", "2 eggs"),
    (Numbers(), "三斤苹果", "五斤苹果"),
    (Units(), "how many feet in a furlong", "how many yards in a furlong"),
    (Negation(), "what may I bring", "what may I not bring"),
    (Negation(), "is it legal", "is it illegal"),
    (Negation(), "bake with yeast", "bake without yeast"),
    (Negation(), "孕妇可以喝茶", "孕妇不可以喝茶"),
    (Antonyms(), "enable dark mode", "disable dark mode"),
    (Antonyms(), "turn on the alarm", "turn off the alarm"),
    (Antonyms(), "increasing the volume", "lowering the volume"),
    (Antonyms(), "the pros of remote work", "the cons of remote work"),
    (Antonyms(), "怎么打开蓝牙", "怎么关闭蓝牙"),
    (Identifiers(), "what does `ls -l` do", "what does `ls -a` do"),
    (Identifiers(), "call getUser", "call getuser"),
    (Identifiers(), "read /etc/fstab", "read /etc/hosts"),
    (Identifiers(), "use os.path", "use os.path.join"),
    (Identifiers(), "docker run --rm", "docker run --init"),
    (Entities(), "weather in Porto", "weather in Faro"),
    (Entities(), "who is Ada Lovelace", "who is Ada Palmer"),
    (Entities(), "learn ruby", "learn scala"),
    (Entities(), "去北京旅游", "去南京旅游"),
    (SwappedNames(), "a green card", "a red card"),
    (Quantifiers(), "do all cats purr", "do some cats purr"),
    (Quantifiers(), "只有会员能用", "会员能用"),
    (Comparisons(), "bring at least two", "bring at most two"),
    (Comparisons(), "the tallest tower", "a tower"),
    (Person(), "how old is he", "how old am i"),
    (Tense(), "what was the price", "what will the price be"),
    (QuestionType(), "who built the dam", "when was the dam built"),
    (QuestionType(), "how does rust form", "why does rust form"),
    (QuestionType(), "what is Petra", "where is Petra"),
    (QuestionType(), "how many eggs do I need", "how much flour do I need"),
    (QuestionType(), "谁修了大坝", "什么时候修了大坝"),
    (Order(), "convert miles to km", "convert km to miles"),
    (Order(), "is silk stronger than steel", "is steel stronger than silk"),
    (Order(), "fly from Oslo to Rome", "fly from Rome to Oslo"),
    (Order(), "do frogs eat flies", "do flies eat frogs"),
    (Order(), "is a lemon a fruit", "is a fruit a lemon"),
    (Order(), "铁比铜重吗", "铜比铁重吗"),
    (NearIdentical(), "How do I reset my phone", "How do I reset my laptop"),
    (NearIdentical(), "How do I reset my phone", "How can I reset a laptop?"),
    (NearIdentical(), "how to knit", "how to knit for beginners"),
    (NearIdentical(), "where can I learn to dance", "where can I learn to dance for free"),
    (NearIdentical(), "怎么画马", "怎么画老虎"),
    (Order(), "who taught Plato", "who did Plato teach"),
    (Order(), "爸爸的妈妈叫什么", "妈妈的爸爸叫什么"),
    (Order(), "how do I get from A to B", "how do I get from B to A"),
    (Order(), "2的3次方", "3的2次方"),
    (Person(), "what is my name", "what is your name"),
    (Tense(), "who is the king", "who was the king"),
    (Identifiers(), "what is # in C", "what is ## in C"),
    (NearIdentical(), "what does 😂 mean", "what does 😭 mean"),
    (NearIdentical(), "define affect", "define effect"),
    (NearIdentical(), "周杰伦的歌", "林俊杰的歌"),
    (Numbers(), "the richest man", "the second richest man"),
    (QuestionType(), "what time is it in Tokyo", "what day is it in Tokyo"),
]

PASSED: list[tuple[Guard, str, str]] = [
    (Numbers(), "1,000 steps", "one thousand steps"),
    (Numbers(), "run 10km", "run 10 kilometres"),
    (Numbers(), "open at 5 pm", "open at 17:00"),
    (Numbers(), "2 dozen eggs", "24 eggs"),
    (Numbers(), "$20 a day", "20 dollars a day"),
    (Numbers(), "$5.00", "5 dollars"),
    (Numbers(), "on 2024-05-03", "2024-5-3"),
    (Numbers(), "the 1st of May", "the first of May"),
    (Numbers(), "which one is better", "which is better"),
    (Numbers(), "三天", "3天"),
    (Negation(), "why can't I sleep", "why can I not sleep"),
    (Negation(), "is it unsafe", "is it not safe"),
    (Negation(), "do you know whether or not it rains", "do you know whether it rains"),
    (Negation(), "非常好", "很好"),
    (Negation(), "两者的区别", "两者的不同"),
    (Antonyms(), "open and close a file", "close and open a file"),
    (Antonyms(), "start a car", "begin a car"),
    (Identifiers(), 'what does "zeal" mean', "what does zeal mean"),
    (Identifiers(), "What is a verb.Is it useful", "What is a verb. Is it useful"),
    (Identifiers(), "e.g. the U.S. army", "the US army"),
    (Entities(), "jobs in the United States", "jobs in the USA"),
    (Entities(), "learn JS", "learn javascript"),
    (Entities(), "capital of Norway", "capital of norway"),
    (Entities(), "What Is The Capital Of Norway Today", "what is the capital of Norway"),
    (Entities(), "what is k8s", "what is Kubernetes"),
    (Entities(), "伦敦的天气", "London的天气"),
    (Quantifiers(), "what are all the planets", "what are the planets"),
    (Comparisons(), "the best tower", "a good tower"),
    (Person(), "how do I swim", "how does one swim"),
    (Tense(), "what is the price", "what was the price"),
    (QuestionType(), "where can I buy yeast", "how can I buy yeast"),
    (QuestionType(), "in what year did it end", "when did it end"),
    (QuestionType(), "what is the reason that cats purr", "why do cats purr"),
    (QuestionType(), "when I run, why do I cough", "why do I cough when I run"),
    (Order(), "the difference between silk and wool", "the difference between wool and silk"),
    (Order(), "silk or wool, which is warmer", "wool or silk, which is warmer"),
    (Order(), "how far is Oslo from Rome", "how far is Rome from Oslo"),
    (Order(), "in Perl, how do I sort a list", "how do I sort a list in Perl"),
    (Order(), "did the dog bite the man", "was the man bitten by the dog"),
    (NearIdentical(), "how do I mend a coat", "how can one repair a coat"),
    (NearIdentical(), "how do I learn violin", "how do I master the violin"),
    (NearIdentical(), "怎么修理自行车", "如何维修单车"),
]


def identified(cases: list[tuple[Guard, str, str]]) -> list[str]:
    return [f"{guard.name}: {a} | {b}" for guard, a, b in cases]


@pytest.mark.parametrize(("guard", "a", "b"), REFUSED, ids=identified(REFUSED))
def test_refuses(guard: Guard, a: str, b: str) -> None:
    assert guard.refuses(parse(a), parse(b))
    assert guard.refuses(parse(b), parse(a))
    assert first_refusal(parse(a), parse(b)) is not None


@pytest.mark.parametrize(("guard", "a", "b"), PASSED, ids=identified(PASSED))
def test_lets_pass(guard: Guard, a: str, b: str) -> None:
    assert not guard.refuses(parse(a), parse(b))
    assert not guard.refuses(parse(b), parse(a))


def test_names_are_labels() -> None:
    names = [guard.name for guard in GUARDS]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)


def test_a_refusal_says_which_guard() -> None:
    refusal = first_refusal(parse("turn on the radio"), parse("turn off the radio"))
    assert refusal is not None
    assert refusal.guard == "antonyms"
    assert first_refusal(parse("turn on the radio"), parse("How do I turn on the radio?")) is None


WORDS = (
    "how do i you what which who when where why is the a cats dogs eat like bigger than from to and or vs not never "
    "without 3 4 km miles five all some only most least first last python java "
    "C++ Paris US us 2024-05-03 7 pm `x` 'q' \"q\" a.b --f /etc he my was will # () 😀 "
    "怎么 不 没 猫 狗 比 从 到 三 天 北京 吗 , ? ."
)
questions = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS.split(" ")), max_size=12).map(" ".join))


@given(questions, questions)
@settings(max_examples=700, deadline=None)
def test_guards_are_symmetric_and_never_raise(a: str, b: str) -> None:
    one, other = parse(a), parse(b)
    for guard in GUARDS:
        assert guard.refuses(one, other) == guard.refuses(other, one), guard.name


@given(questions)
@settings(max_examples=500, deadline=None)
def test_no_question_is_refused_for_itself(text: str) -> None:
    assert first_refusal(parse(text), parse(text)) is None

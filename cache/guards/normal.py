"""The normal form: a text without the differences that can never change its answer."""

import hashlib
import re
from functools import lru_cache
from typing import Final

from cache.guards import lexicon
from cache.guards.lexicon import bag
from cache.guards.numerals import HAN_NUMERALS, SCALES, SMALL, chinese, english
from cache.guards.tokens import clean, segment

_HAN: Final = "[㐀-鿿]"
_WHOLE: Final = re.compile(r"[`\n\r\t{}\[\];=|<>：]|:(?!\d\d)")
"""Code, tables, verse, something that is quoted after a colon: nothing inside such a text is touched."""
_PROTECTED_HINT: Final = re.compile(r"[\"《'@_:/\\(]|\.\w|www\.")
_PROTECTED: Final = re.compile(
    r"(\"[^\"]*\"|《[^》]{0,200}》|(?<!\w)'[^']{0,200}'(?!\w)|(?<!\S)(?=\S*(?:https?:|www\.|@|_|::|\\|/|\(\)|[\w)]\.\w|\w['\"]\"))\S+)"
)

_WORD: Final = re.compile(r"\w+")
_FOLDED: Final = str.maketrans("ſıİ", "sii")
_ABOUT_WORDS: Final = bag(
    "say says said words word phrase phrases letter letters syllable syllables vowel vowels consonant consonants character characters "
    "write reply respond rhyme rhymes grammar sentence sentences lowercase uppercase greeting greetings correct fix edit rewrite "
    "contraction contractions apostrophe apostrophes comma commas sentiment classify reverse palindrome palindromes anagram anagrams "
    "scrabble ascii unicode escape shortcut lyrics song singer title"
)
_ABOUT_WORDS_STEMS: Final = (
    "translat",
    "mean",
    "spell",
    "pronounc",
    "capitali",
    "polite",
    "proofread",
    "paraphras",
    "punctuat",
    "alphabetical",
    "regex",
)
_ABOUT_WORDS_PHRASES: Final = re.compile(
    r"\b(?:english|french|spanish|german|italian|portuguese|dutch|russian|arabic|hindi|chinese|mandarin|japanese|korean|turkish|latin)"
    r" for\b"
    r"|翻译|意思|怎么说|怎么写|怎么读|怎么讲|回复|造句|成语|笔画|读音|拼音|礼貌|问候|断句|标点|病句|歌",
    re.IGNORECASE,
)

_ASKED: Final = r"(?:what|how|why|when|where|who|which|whether)\b"
_OPENING: Final = (
    r"(?:what|how|why|when|where|who|which|is|are|was|were|do|does|did|can|could|would|will|should|please|kindly|explain|describe|list|give|show"
    r"|tell|define|compare|find|write|translate|summarize|i|i'd|i'm|in|if|hi|hello|hey)\b"
)
_OPENING_ZH: Final = r"[^,。!]{0,30}(?:什么|怎|为何|如何|哪|谁|多少|几|是否|吗|请|帮|解释|介绍|你好|您好|能不能|可不可以)"
"""A greeting goes only before a question or a request: `Hello, Dolly` is a name."""
_LEAD: Final = re.compile(
    r"(?:(?:hi|hello|hey|greetings|good (?:morning|afternoon|evening))(?: there| everyone| all)? ?[,!.]+ ?(?=" + _OPENING + ")"
    r"|(?:please|kindly|pls|plz)[, ] ?(?=" + _OPENING + ")"
    r"|(?:please |kindly )?(?:(?:can|could|would|will) you (?:please |kindly )?)?(?:tell me|let me know) (?=" + _ASKED + ")"
    r"|(?:can|could|would|will) you (?:please|kindly) (?=[a-z])"
    r"|i (?:would|'d) like to know (?=" + _ASKED + ")"
    r"|(?:你好|您好|大家好|嗨)[,!。. ]+(?=" + _OPENING_ZH + ")|(?:请问|麻烦问一下|想问一下|请教一下)(?:一下)?[,:]? ?)",
    re.IGNORECASE,
)
_TRAIL: Final = re.compile(
    r" ?[,.。!?;] ?(?:please|thanks(?: a lot| in advance| so much)?|thank you(?: very much| so much| in advance)?|many thanks|thx"
    r"|谢谢(?:你|您|大家|啦|了)?|多谢|感谢)[ .!。~?]{0,20}$",
    re.IGNORECASE,
)
_FINAL: Final = re.compile(r"(?:(?<=[^\W\d_])[?!.。…]{1,40}|(?<=[\d)\"'》%#+])\?{1,40}|(?<=[\d\"'》%])[.。]{1,40}) ?$")
"""Not behind a space: the mark may be what is asked about."""
_PARTICLE: Final = re.compile(f"(?<={_HAN})[呢呀啊]{{1,40}}$")
"""Not 吗: it makes another question of `你想吃什么`."""
_ASKING: Final = re.compile("什么|怎么|怎样|为何|如何|哪|谁|多少|几|是否|是不是|能不能|可不可以|会不会|有没有")
_TAIL: Final = 100
_TAIL_HINT: Final = re.compile("[?!,;.。…呢呀啊]")
_SPACES: Final = re.compile(f" (?={_HAN})|(?<={_HAN}) ")

_CONTRACTION: Final = re.compile(
    r"\b(?:(can)not|(ca|wo|do|does|did|is|are|was|were|has|have|had|should|would|could|must|need)n('?)t"
    r"|(what|who|where|how|when|why|that|it|there|here)'s|([a-z]{1,20})'(re|ve|ll|m))\b",
    re.IGNORECASE,
)
_CONTRACTION_HINT: Final = re.compile(r"'|n(?:o|)t\b", re.IGNORECASE)
_WITHOUT_APOSTROPHE: Final = bag("do does did is are was")
_NOT: Final = {"ca": "can", "wo": "will"}
_TAILS: Final = {"re": "are", "ve": "have", "ll": "will", "m": "am"}

_JOINING: Final = r"(?:or|and|plus|minus|times|divided|vs|versus|to|from|is|are|in|of|on|at|by|than|with|equals?|as|if|the)\b"
_COUNTS: Final = "|".join(sorted(SMALL, key=len, reverse=True))
_SCALES: Final = "|".join(SCALES)
_NUMBER_RUN: Final = re.compile(
    rf"(?<![\w-])(?>(?:one(?= (?:{_SCALES})\b)|{_COUNTS})(?:[ -](?:{_COUNTS}|{_SCALES}|one)){{0,12}})(?= (?!{_JOINING})[^\W\d_]{{2,}})",
    re.IGNORECASE,
)
"""Before what is counted: alone, the word may be what is meant."""
_HAN_COUNT: Final = re.compile(f"[{''.join(sorted(HAN_NUMERALS))}]{{1,16}}")
_COUNTED: Final = bag(
    "个 天 年 月 次 岁 元 块 人 只 条 张 本 台 辆 公里 米 厘米 公斤 斤 克 千克 吨 小时 分钟 周 层 倍 步 杯 瓶 件 首 篇 集 种"
)

_AMBIGUOUS: Final = bag(
    "us it who aids may march august polish turkey china apple amazon orange windows mark bill frank rose will jack grace hope faith joy "
    "chase reading nice mobile bath cork job java python rust swift go r c target shell visa gap sprint discord slack zoom signal oracle "
    "word excel access teams stripe square unity edge opera brave spark flutter ruby pearl mercury mars venus saturn earth sun moon jordan "
    "georgia chile lent lima rabat split natal said worth essex march mali meta lisp pascal julia ada basic perl dart scala elm pandas "
    "cargo basis bash galaxy notion trello kindle echo alexa siri gemini claude bard llama"
)
"""Words that mean another thing with a capital."""
_STARTERS: Final = bag(
    "how what why when where who which whose is are was were do does did can could should would has have had the an in if explain describe "
    "list give show tell define compare name find write my for am shall on at"
)
_NAMES: Final = frozenset(
    name for _, names in lexicon.sections("names") for name in names if name.isascii() and name.isalpha() and len(name) > 3
)
_CAPITALISED: Final = _NAMES - _AMBIGUOUS


REMEMBERED, REMEMBERED_CHARS = 1024, 256
"""A look-up needs the form of its question more than once."""


def normal_form(text: str, whose: str = "") -> str:
    """The canonical form of a text: equal forms have equal answers. Idempotent; never raises. It is remembered for the namespace `whose`
    alone, lest the time tell others what was asked; empty: it is not.

    Gone are width and compatibility forms, spacing, final marks, greetings and politeness around the question, contractions,
    number words before what they count, and capitals where they are only a way of writing. Texts with code, and questions about words,
    keep all but the space around them.
    """
    return _remembered(text, whose) if whose and len(text) <= REMEMBERED_CHARS else _formed(text)


def normal_key(text: str, whose: str = "") -> str:
    """Hash of the normal form. `whose`: see there."""
    return hashlib.sha256(normal_form(text, whose).encode("utf-8", "surrogatepass")).hexdigest()


def _formed(text: str) -> str:
    form = text.strip()
    while (shorter := _step(form)) != form:
        form = shorter
    return form


@lru_cache(REMEMBERED)
def _remembered(text: str, whose: str) -> str:
    return _formed(text)


def _step(form: str) -> str:
    if _WHOLE.search(form) or form.count('"') % 2 or _is_about_words(form):
        return form
    form = " ".join(clean(form).split())
    parts = _PROTECTED.split(form) if _PROTECTED_HINT.search(form) else [form]
    parts[0] = _without_lead(parts[0])
    parts[::2] = [_plain(part, at == 0) for at, part in enumerate(parts[::2])]
    return _without_tail("".join(parts).strip())


def _is_about_words(form: str) -> bool:
    """How something is written may be what is asked about."""
    words = _WORD.findall(form.translate(_FOLDED).lower())
    return (
        not _ABOUT_WORDS.isdisjoint(words)
        or any(word.startswith(_ABOUT_WORDS_STEMS) for word in words)
        or _ABOUT_WORDS_PHRASES.search(form) is not None
    )


def _without_lead(form: str) -> str:
    at = 0
    while (match := _LEAD.match(form, at)) and match.end() < len(form):
        at = match.end()
    return form[at:]


def _without_tail(form: str) -> str:
    """Without thanks, final marks and particles. `5!` keeps its mark."""
    end, asking = len(form), not form.isascii() and _ASKING.search(form) is not None
    while end:
        start = max(0, end - _TAIL)
        if not _TAIL_HINT.search(form, start, end):
            break
        match = _TRAIL.search(form, start, end) or _FINAL.search(form, start, end)
        if match is None and asking:
            match = _PARTICLE.search(form, start, end)
        if match is None or not match.start():
            break
        end = match.start()
    return form[:end].rstrip()


def _plain(part: str, first: bool) -> str:
    """A part outside quotations, addresses and identifiers."""
    part = _SPACES.sub("", part)
    part = _CONTRACTION.sub(_expanded, part) if _CONTRACTION_HINT.search(part) else part
    part = _NUMBER_RUN.sub(lambda match: english(re.split("[ -]", match[0].lower())) or match[0], part)
    part = _HAN_COUNT.sub(lambda match: _counted(part, match), part)
    words = part.split(" ")
    return " ".join(_lower(word, first and at == 0) for at, word in enumerate(words))


def _expanded(match: re.Match[str]) -> str:
    can, verb, quote, subject, head, tail = match.groups()
    if can:
        return f"{can} not"
    if verb:
        if not quote and verb.lower() not in _WITHOUT_APOSTROPHE:
            return match[0]
        return (verb[0] + _NOT[verb.lower()][1:] if verb.lower() in _NOT else verb) + " not"
    return f"{subject} is" if subject else f"{head} {_TAILS[tail.lower()]}"


def _counted(part: str, match: re.Match[str]) -> str:
    """Chinese numerals before a measure word, if segmentation takes them for numerals and not for parts of words."""
    run, after = match[0], part[match.end() : match.end() + 4]
    if not after or run[0] in "百千万亿" or run == "一":
        return run
    known = segment(part[max(0, match.start() - 4) : match.end()] + after)
    return chinese(run) if segment(after)[0] in _COUNTED and all(char in known for char in run) else run


def _lower(word: str, initial: bool) -> str:
    """A word in small letters, if its capital says nothing."""
    bare = word.strip("?!.,:'()").lower()
    if not word[:1].isupper() or word[1:] != word[1:].lower() or not bare.isalpha():
        return word
    common = initial and (bare in _STARTERS or (len(bare) > 3 and bare not in _AMBIGUOUS))
    return word.lower() if common or bare in _CAPITALISED else word

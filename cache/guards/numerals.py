"""Number words as digits, English and Chinese."""

import re
from decimal import Decimal, InvalidOperation
from typing import Final

from cache.guards import lexicon

SMALL: Final = {word: int(digits) for word, digits in (line.split() for line in lexicon.lines("numerals"))}
SCALES: Final = {
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
    "dozen": 12,
    "lakh": 10**5,
    "crore": 10**7,
}
ORDINALS: Final = {
    word: n
    for n, word in enumerate(
        lexicon.row(
            "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth "
            "sixteenth seventeenth eighteenth nineteenth twentieth"
        ),
        start=1,
    )
}
ROMAN: Final = {"II": "2", "III": "3", "IV": "4", "VI": "6", "VII": "7", "VIII": "8", "IX": "9"}

_HAN_DIGITS: Final = {char: n for n, char in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_HAN_SMALL: Final = {"十": 10, "百": 100, "千": 1000}
_HAN_LARGE: Final = {"万": 10**4, "亿": 10**8}
HAN_SCALES: Final = _HAN_SMALL | _HAN_LARGE
HAN_NUMERALS: Final = frozenset(_HAN_DIGITS) | frozenset(HAN_SCALES)

_LARGEST: Final = Decimal(10**16)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d+)?")


def plain(value: Decimal | int) -> str:
    """A number without exponent or trailing zeros: 1.50 is 1.5, 1E+3 is 1000."""
    text = f"{Decimal(value):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def ungrouped(digits: str) -> str:
    """`1,000` to `1000`; anything else as it is."""
    return digits.replace(",", "") if "," in digits and _GROUPED.fullmatch(digits) else digits


def scaled(digits: str, factor: int) -> str | None:
    """A written number times a scale, None if it is a version, a fraction or too long to be meant."""
    try:
        return plain(Decimal(digits) * factor) if len(digits) < 20 else None
    except InvalidOperation:
        return None


def english(run: list[str]) -> str | None:
    """The digits of a run such as `two hundred and five`, `2 dozen`, `twenty five`; None if it is not one number."""
    total, part, last = Decimal(0), Decimal(0), 0
    for word in run:
        if word == "and":
            continue
        if word in SCALES:
            scale = SCALES[word]
            part = (part or Decimal(1)) * scale
            if part > _LARGEST:
                return None
            if scale >= 1000:
                total, part = total + part, Decimal(0)
            last = scale
            continue
        value = Decimal(1) if word == "one" else Decimal(SMALL[word]) if word in SMALL else _decimal(word)
        if value is None or (part and not _may_follow(value, last)):
            return None
        part, last = part + value, int(value)
    return plain(total + part)


def _decimal(digits: str) -> Decimal | None:
    return Decimal(digits) if re.fullmatch(r"\d{1,15}(?:\.\d{1,9})?", digits) and digits.isascii() else None


def _may_follow(value: Decimal, last: int) -> bool:
    """`twenty` may be followed by `five`, `hundred` by up to 99."""
    return value < last and (last >= 100 or (last % 10 == 0 and last >= 20 and value < 10))


def chinese(run: str) -> str:
    """The digits of a run of Chinese numerals: 二十五 is 25, 两千零五 is 2005, 二零二四 is 2024."""
    if not any(char in HAN_SCALES for char in run):
        return "".join(str(_HAN_DIGITS[char]) for char in run)
    total, section, digit = 0, 0, 0
    for char in run:
        if char in _HAN_DIGITS:
            digit = _HAN_DIGITS[char]
        elif char in _HAN_SMALL:
            section, digit = section + (digit or 1) * _HAN_SMALL[char], 0
        else:
            total, section, digit = total + ((section + digit) or 1) * _HAN_LARGE[char], 0, 0
    return str(total + section + digit)

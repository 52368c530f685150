"""Makes `serve_app/content/look_alikes.txt` of Unicode's data: `python scripts/look_alikes.py CONFUSABLES_TXT`.

The file is https://www.unicode.org/Public/security/latest/confusables.txt. Of it those letters are taken that look like one of a to z, with
or without marks, and are not folded to it by NFKC. Small capitals, which Unicode's table leaves as they are, and letters in dark circles
and squares are taken by their names. A small letter that looks like none stands for its capital: the Cyrillic ka for k.
"""

import re
import sys
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TARGET = Path(__file__).parent.parent / "serve_app/content/look_alikes.txt"
ROW = re.compile(r"([0-9A-F]+) ;\t([0-9A-F ]+) ;")
BY_NAME = re.compile(r"(?:LATIN LETTER SMALL CAPITAL|NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER) ([A-Z])")


def letter_of(text: str) -> str | None:
    """The one of a to z that the text is, but for case and marks."""
    bare = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    named = BY_NAME.fullmatch(unicodedata.name(bare, "")) if len(bare) == 1 else None
    found = (named.group(1) if named else bare).lower()
    return found if len(found) == 1 and "a" <= found <= "z" else None


def rows(lines: list[str]) -> Iterator[tuple[str, str]]:
    """A character, and the letter that it looks like."""
    for line in lines:
        if (row := ROW.match(line)) and (letter := letter_of("".join(chr(int(code, 16)) for code in row.group(2).split()))):
            yield chr(int(row.group(1), 16)), letter
    for char in map(chr, range(sys.maxunicode + 1)):
        if named := BY_NAME.fullmatch(unicodedata.name(char, "")):
            yield char, named.group(1).lower()


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    lines = Path(sys.argv[1]).read_text("utf-8-sig").splitlines()
    found: defaultdict[str, set[str]] = defaultdict(set)
    for char, letter in rows(lines):
        is_letter = unicodedata.category(char)[0] == "L" or BY_NAME.fullmatch(unicodedata.name(char, ""))
        if is_letter and not char.isascii() and unicodedata.normalize("NFKD", char) == char:
            found[letter].add(char)
    capitals = {char.lower(): letter for letter, chars in found.items() for char in chars}
    taken = set().union(*found.values())
    for small, letter in capitals.items():
        if len(small) == 1 and small not in taken and not small.isascii():
            found[letter].add(small)
    version, holder = (next(line[2:] for line in lines if line.startswith(start)) for start in ("# Version", "# ©"))
    head = [
        "# Letters that look like one of a to z: made by scripts/look_alikes.py of Unicode's confusables.txt.",
        f"# {version}. {holder} Licence: LICENSE-UNICODE in this folder.",
    ]
    body = [" ".join([letter, *(f"{ord(char):04X}" for char in sorted(found[letter]))]) for letter in sorted(found)]
    TARGET.write_text("\n".join([*head, *body]) + "\n")


if __name__ == "__main__":
    main()

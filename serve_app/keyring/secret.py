"""The text of a key: `mygo_ID_SECRET`, in letters and digits. Only its hash is kept anywhere.

A SHA-256 is enough of a hash: unlike a password, a secret of 190 random bits cannot be guessed from it.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib

PREFIX = "mygo"
ID_CHARS = 12
SECRET_CHARS = 32
"""190 bits."""
CHECK_CHARS = 6
_ALPHABET = string.digits + string.ascii_letters
_FORM = re.compile(rf"{PREFIX}_([0-9A-Za-z]{{{ID_CHARS}}})_[0-9A-Za-z]{{{SECRET_CHARS + CHECK_CHARS}}}\Z")


def new_id() -> str:
    return _random(ID_CHARS)


def new_key(key_id: str) -> str:
    """A key's text, to be shown once."""
    text = f"{PREFIX}_{key_id}_{_random(SECRET_CHARS)}"
    return text + _check(text)


def id_of(text: str) -> str | None:
    """None for what cannot be a key: that is found out without asking a database."""
    found = _FORM.match(text)
    if found is None or not hmac.compare_digest(_check(text[:-CHECK_CHARS]), text[-CHECK_CHARS:]):
        return None
    return found.group(1)


def digest(text: str) -> str:
    """What is kept of a key, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _check(text: str) -> str:
    """A checksum, so that a mistyped key is told from an unknown one, and scanners for leaked secrets can be sure of what they found."""
    number, made = zlib.crc32(text.encode()), ""
    for _ in range(CHECK_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        made += _ALPHABET[digit]
    return made

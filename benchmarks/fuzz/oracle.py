"""What an answer must not be."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence

from benchmarks.fuzz.wire import Answer, Exchange

INJECTED = b"x-injected"
"""A header that damaged requests try to put into answers."""
_FIELDS = {"message", "type", "param", "code"}
_ANTHROPICS = {"type", "message"}
_NOT_OURS = (b"<html>", b"Path '", b"Invalid HTTP request received.", b"Failed to open a WebSocket connection")
"""How the proxy's own pages begin, and the server's, for what never reaches the application."""


class Secrets:
    """What each tenant alone may see, and keys, which nobody may. `of`: by the tenant's name, texts of letters and digits."""

    def __init__(self, of: Mapping[str, Iterable[str]], keys: Iterable[str]) -> None:
        self._owner = {secret.encode(): tenant for tenant, secrets in of.items() for secret in secrets}
        self._keys = [key.encode() for key in keys]
        self._all = re.compile(b"|".join(map(re.escape, [*self._owner, *self._keys])))

    def foreign(self, raw: bytes, tenant: str) -> list[str]:
        """Those in `raw` that are not this tenant's own."""
        found = set(self._all.findall(raw))
        return sorted(each.decode() for each in found if self._owner.get(each) != tenant)

    def in_log(self, raw: bytes) -> list[str]:
        return sorted(each.decode() for each in set(self._all.findall(raw)))


def faults(exchange: Exchange, owners: Sequence[str], secrets: Secrets, *, is_due: bool) -> list[str]:
    """What is wrong with what came back. `owners`: whose request each answer is for (the last one's are all that follow)."""
    found = []
    if exchange.hung:
        found.append("hang: no answer, and no end")
    if exchange.raw.startswith(b"cannot connect"):
        found.append(exchange.raw.decode())
    if is_due and not exchange.hung and not exchange.answers:
        found.append("closed without an answer to a whole request")
    for place, answer in enumerate(exchange.answers):
        owner = owners[min(place, len(owners) - 1)]
        found += [f"leak: {secret} of somebody else" for secret in secrets.foreign(_flat(answer), owner)]
        found += answer_faults(answer)
        if not answer.is_whole and is_due:
            found.append("the answer was cut off")
    if not exchange.answers:
        found += [f"leak: {secret} of somebody else" for secret in secrets.foreign(exchange.raw, owners[0])]
    return found


def answer_faults(answer: Answer) -> list[str]:
    found = []
    if answer.status >= 500:
        found.append(f"status {answer.status}: {answer.body[:300]!r}")
    if any(name == INJECTED for name, _ in answer.headers):
        found.append("a header was injected")
    if 400 <= answer.status < 500 and answer.body and answer.is_whole and not is_refusal(answer):
        found.append(f"status {answer.status} without an error of our shape: {answer.body[:200]!r}")
    if answer.header(b"content-type").startswith(b"application/json") and answer.body and answer.is_whole and _json(answer.body) is None:
        found.append(f"no JSON: {answer.body[:200]!r}")
    return found


def is_refusal(answer: Answer) -> bool:
    """OpenAI's error, Anthropic's, ModelCache's, or one of the proxy's or the server's for what never reached the application."""
    if answer.body.startswith(_NOT_OURS):
        return answer.status in (400, 403, 404, 405, 408, 413, 414, 422, 426, 431)
    body = _json(answer.body)
    if not isinstance(body, dict):
        return False
    error = body.get("error")
    if isinstance(error, dict):
        return set(error) == (_ANTHROPICS if body.get("type") == "error" else _FIELDS) and isinstance(error["message"], str)
    return isinstance(body.get("errorCode"), int) and isinstance(body.get("errorDesc"), str)


def _json(body: bytes) -> object:
    """None: it is none."""
    try:
        value: object = json.loads(body)
    except ValueError:
        return None
    return value


def _flat(answer: Answer) -> bytes:
    return b"\n".join([*(part for header in answer.headers for part in header), answer.body])

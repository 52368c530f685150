"""How long answers are: what is expected of a request before it is computed."""

from collections import OrderedDict

UNKNOWN = 128.0
"""Tokens of an answer, of a tenant that has had none yet."""
WEIGHT = 0.05
"""Of each answer in the mean."""
MAX_REMEMBERED = 10_000
CHARACTERS_A_TOKEN = 4
"""Of English, where tokens are not counted yet."""


class AnswerLengths:
    """Moving means of the tokens of answers, by tenant."""

    def __init__(self) -> None:
        self._means: OrderedDict[str, float] = OrderedDict()

    def expected(self, tenant: str, max_tokens: int | None) -> float:
        mean = self._means.get(tenant, UNKNOWN)
        return mean if max_tokens is None else min(mean, max_tokens)

    def seen(self, tenant: str, tokens: int) -> None:
        mean = self._means.pop(tenant, UNKNOWN)
        self._means[tenant] = mean + WEIGHT * (tokens - mean)
        if len(self._means) > MAX_REMEMBERED:
            self._means.popitem(last=False)

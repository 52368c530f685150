"""What a tenant allows the semantic tier."""

from dataclasses import dataclass
from typing import Literal

from cache.decision.account import Budget

Dialogue = Literal["last_turn", "summary"]
"""What of a dialogue is compared: its last turn, all before it being equal, or what the user said in all turns together."""
Mode = Literal["verified", "static", "shadow", "off"]


@dataclass(frozen=True, slots=True)
class Policy:
    """One tenant's rules. Probabilities are the verifier's; similarities are cosines."""

    mode: Mode = "verified"
    """`verified`: under the error budget. `static`: from `min_probability` on. `shadow`: decide as in `verified`, never serve.
    `off`: neither look up nor learn."""
    budget: Budget = Budget(0.02)  # noqa: RUF009  # frozen
    min_similarity: float = 0.7
    """Candidates below it are not looked at."""
    min_probability: float = 0.88
    """In mode `static`, the least that the verifier must give an answer."""
    floor: float = 0.8
    """In the other modes: below it an answer is never served, whatever was learnt."""
    long_chars: int = 256
    """Longer questions are compared by `long_similarity`: one vector, and a pairwise model, see little of a long text."""
    long_similarity: float = 0.97
    top_k: int = 8
    max_verified: int = 3
    """Candidates that the verifier may judge for one look-up."""
    audit_share: float = 0.02
    """Share of the hits whose answer is also computed anew, to check."""

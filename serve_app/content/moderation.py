"""What is done with a moderation model's verdicts, and without them."""

import logging
from dataclasses import dataclass
from typing import Literal

from serve_app.content.base import ModerationError, Moderator
from serve_app.errors import UnavailableError
from serve_app.metrics import Metrics

log = logging.getLogger("ray.serve")

NAME = "moderation"
"""How it is named among the rules."""
OnFailure = Literal["open", "closed"]
"""Without a verdict, texts pass, or do not."""


@dataclass(frozen=True, slots=True)
class Moderation:
    """Judges prompts before anything is computed or replayed for them, and answers once they are complete: whole ones before they are
    sent; of a streamed one, which has been sent by then, it can only stop that it is kept.
    """

    moderator: Moderator
    on_failure: OnFailure
    judges_answers: bool
    metrics: Metrics

    async def flags(self, text: str) -> bool:
        """Raises `UnavailableError` without a verdict, if that is what is to be done."""
        if not text.strip():
            return False
        try:
            verdict = await self.moderator.judge(text)
        except ModerationError as error:
            log.warning("the moderation model gave no verdict", extra={"error": str(error)})
            self.metrics.operation(NAME, "failed")
            if self.on_failure == "closed":
                raise UnavailableError("What this would say could not be judged. Try again.", code="moderation_unavailable") from None
            return False
        self.metrics.operation(NAME, "flagged" if verdict.is_flagged else "passed")
        if verdict.is_flagged:
            self.metrics.content(NAME, "block")
        return verdict.is_flagged

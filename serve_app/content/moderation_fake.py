"""A moderation model for tests."""

from collections.abc import Mapping

from serve_app.content.base import ModerationError, Verdict


class FakeModerator:
    """A `Moderator` that flags texts with certain words in them."""

    def __init__(self, categories: Mapping[str, str]) -> None:
        """`categories`: by word."""
        self._categories = categories
        self.fails = False
        """It does not answer."""
        self.judged: list[str] = []
        self.is_closed = False

    async def judge(self, text: str) -> Verdict:
        self.judged.append(text)
        if self.fails:
            raise ModerationError("as the test says")
        return Verdict([category for word, category in self._categories.items() if word in text])

    async def close(self) -> None:
        self.is_closed = True

"""A moderation model that is asked as OpenAI's is: `POST /v1/moderations`."""

import asyncio

import httpx
import msgspec

from serve_app.content.base import ModerationError, Verdict


class _Result(msgspec.Struct):
    flagged: bool
    categories: dict[str, bool | None] = {}


class _Answer(msgspec.Struct):
    results: list[_Result]


class HttpModerator:
    """A `Moderator`. One for each process: its connections are kept."""

    def __init__(
        self, url: str, key: str | None, model: str | None, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        self._client = httpx.AsyncClient(headers=headers, timeout=timeout_s, transport=transport)
        self._url = url
        self._beside = {} if model is None else {"model": model}
        self._timeout_s = timeout_s

    async def judge(self, text: str) -> Verdict:
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._client.post(self._url, json={"input": text, **self._beside})
            response.raise_for_status()
            results = msgspec.json.decode(response.content, type=_Answer).results
        except httpx.HTTPStatusError as error:
            raise ModerationError(f"status {error.response.status_code}") from None
        except (httpx.HTTPError, TimeoutError, msgspec.DecodeError) as error:
            raise ModerationError(type(error).__name__) from None
        if not results:
            raise ModerationError("no result")
        named = sorted({name for result in results if result.flagged for name, is_so in result.categories.items() if is_so})
        return Verdict(named or ["flagged"] if any(result.flagged for result in results) else ())

    async def close(self) -> None:
        await self._client.aclose()

"""Servers that do nothing but answer: the upper bounds."""

import json
import os
from typing import Any

from fastapi import FastAPI

ANSWER_BYTES = int(os.environ.get("ANSWER_BYTES", "600"))


def _answer() -> bytes:
    """A chat's answer of that length."""
    choice = {"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 9, "completion_tokens": 9, "total_tokens": 18}
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    choice["message"]["content"] = "x" * max(0, ANSWER_BYTES - len(json.dumps(answer)))  # type: ignore[index]
    return json.dumps(answer).encode()


BODY = _answer()
VALUE: Any = json.loads(BODY)
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Reads the request's body and sends the answer."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": BODY})


api = FastAPI()


@api.post("/{path:path}")
async def chat(request: dict[str, Any]) -> Any:
    """As anybody would write it."""
    return VALUE

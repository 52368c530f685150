"""Media that a request names by a URL.

vLLM would fetch it from any host: whoever may ask could reach what only the engines' machines can, and learn from the answer or its time
what is there. So media come in the request itself (`data:` URLs), unless `llm.engine.args.extra.allowed_media_domains` names the hosts
that vLLM may fetch from.
"""

from collections.abc import Iterator
from typing import Any

from deployments.config import LlmConfig, SimulatedEngineConfig
from serve_app.errors import InvalidRequestError

_FIELDS = ("image_url", "audio_url", "video_url", "file_url", "input_image", "input_audio", "input_file", "source")
_DATA = "data:"


def refuse_remote_media(body: dict[str, Any], llm: LlmConfig) -> None:
    """Raises `InvalidRequestError` for a URL in a message that is no `data:` URL. With allowed hosts, vLLM refuses the others."""
    if not isinstance(llm.engine, SimulatedEngineConfig) and llm.engine.args.extra.get("allowed_media_domains"):
        return
    for field in ("messages", "input"):
        for path in _remote(body.get(field), field):
            raise InvalidRequestError(
                f"{path} must be a data: URL: nothing is fetched from other places here.", param=path, code="unsupported_value"
            )


def _remote(value: Any, path: str) -> Iterator[str]:
    """Where such URLs are: in messages, in their parts, and in parts of parts (what tools have answered)."""
    if isinstance(value, list):
        for place, each in enumerate(value):
            yield from _remote(each, f"{path}[{place}]")
    elif isinstance(value, dict):
        for name in _FIELDS:
            yield from _remote_url(value.get(name), f"{path}.{name}")
        for name in ("content", "output"):
            if isinstance(value.get(name), list):
                yield from _remote(value[name], f"{path}.{name}")


def _remote_url(value: Any, path: str) -> Iterator[str]:
    """`value`: the URL, or an object that has it under `url` or under the field's own name."""
    if isinstance(value, str):
        if value[: len(_DATA)].lower() != _DATA:
            yield path
    elif isinstance(value, dict):
        for name in ("url", *_FIELDS):
            yield from _remote_url(value.get(name), f"{path}.{name}")

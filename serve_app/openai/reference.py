"""What OpenAI's reference demands of a request where engines differ: one leaves a field out, another takes it for something else.

Every check is of the fields that clients write; what is the model's to know (a token, a template, an image) is the engine's to refuse.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from serve_app.errors import InvalidRequestError

NOT_HAD = {
    "audio": "audio is not had: answers are texts only.",
    "functions": 'functions was replaced by tools: write {"type": "function", "function": {...}} there.',
    "function_call": "function_call was replaced by tool_choice.",
    "web_search_options": "web_search_options is not had: nothing searches the web here.",
}
"""Fields of a chat that ask for what nobody here does. To leave them out silently would be another answer than was asked for."""
MAX_BIAS = 100
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
_TOKEN = re.compile(r"[0-9]{1,9}\Z")
_ANSWERS_BY = ("content", "refusal", "tool_calls", "function_call", "audio", "reasoning", "reasoning_content")
"""What an assistant's message may consist of; the last two are engines'."""
_CHOICES = ("none", "auto", "required")
_PARTS = re.compile(r"text|refusal|thinking|tool_reference|(input|output)_.*|file|(image|audio|video|prompt)_.*")
"""Types of parts: OpenAI's and vLLM's. Which of them the model reads is the engine's to say."""
_FORMATS = ("text", "json_object", "json_schema")


def check_chat(body: Mapping[str, Any]) -> None:
    """`body`: of the types in `ChatRequest`. Raises `InvalidRequestError`, which names the field and never its value."""
    for field, message in NOT_HAD.items():
        if body.get(field) is not None:
            raise InvalidRequestError(message, param=field, code="unsupported_parameter")
    modalities = body.get("modalities")
    if modalities not in (None, ["text"]):
        raise _error("modalities", 'must be ["text"]: answers are texts only', "unsupported_value")
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise _error("top_logprobs", "needs logprobs to be true")
    check_bias(body.get("logit_bias"))
    for at, each in enumerate(body["messages"]):
        _check_message(f"messages[{at}]", each)
    tools = body.get("tools")
    if tools is not None:
        _check_tools(tools)
    if not isinstance(body.get("parallel_tool_calls", True), bool | None):
        raise _error("parallel_tool_calls", "must be true or false")
    _check_choice(body.get("tool_choice"), tools)
    _check_format(body.get("response_format"))


def check_completion(body: Mapping[str, Any]) -> None:
    """As `check_chat`."""
    if body.get("best_of") not in (None, body.get("n") or 1):
        raise _error("best_of", "must be n: every answer that is computed is given", "unsupported_value")
    if body.get("max_tokens") == 0 and not body.get("echo"):
        raise _error("max_tokens", "must be at least 1, or echo must be true")
    check_bias(body.get("logit_bias"))
    prompt = body["prompt"]
    if isinstance(prompt, list):
        _check_prompts(prompt)


def check_embedding(body: Mapping[str, Any]) -> None:
    """Before its types are checked: token ids are a form of OpenAI's that this cannot take, of whatever vocabulary they are."""
    given = body.get("input")
    if isinstance(given, list) and any(isinstance(each, int | list) for each in given):
        raise _error("input", "must be a text or a list of texts; token ids are not taken", "unsupported_value")


def engine_body(body: dict[str, Any]) -> dict[str, Any]:
    """The same request as vLLM takes it: it refuses several answers at temperature 0, but not to choose the likeliest token each time."""
    if body.get("temperature") == 0 and body.get("n", 1) > 1:
        return {**body, "temperature": 1.0, "top_k": 1}
    return body


def check_bias(bias: Mapping[str, float] | None) -> None:
    for token, value in (bias or {}).items():
        if not _TOKEN.match(token):
            raise _error("logit_bias", "must have token ids for keys")
        if not -MAX_BIAS <= value <= MAX_BIAS:
            raise _error("logit_bias", f"must have values from -{MAX_BIAS} to {MAX_BIAS}")


def _check_prompts(prompts: Sequence[Any]) -> None:
    """One kind of prompts: texts, or tokens, or lists of tokens."""
    for kind in (str, int):
        if all(isinstance(each, kind) for each in prompts):
            return _check_tokens(prompts)
    if all(isinstance(each, list) and each for each in prompts) and all(isinstance(token, int) for each in prompts for token in each):
        return _check_tokens([token for each in prompts for token in each])
    raise _error("prompt", "must be a text, a list of texts, a list of tokens, or a list of lists of tokens; none may be empty")


def _check_tokens(tokens: Sequence[Any]) -> None:
    if any(isinstance(token, bool) or (isinstance(token, int) and token < 0) for token in tokens):
        raise _error("prompt", "must have token ids that are not negative")


def _check_message(at: str, message: Mapping[str, Any]) -> None:
    content = message.get("content")
    if message["role"] == "assistant":
        if all(message.get(field) is None for field in _ANSWERS_BY):
            raise _missing(f"{at}.content", "unless the message has tool_calls")
    elif content is None:
        raise _missing(f"{at}.content")
    if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise _missing(f"{at}.tool_call_id", "in a tool's message: it says which call this is the result of")
    if isinstance(content, list):
        _check_parts(f"{at}.content", content)


def _check_parts(at: str, parts: Sequence[Mapping[str, Any]]) -> None:
    if not parts:
        raise _error(at, "must have at least one part")
    for number, part in enumerate(parts):
        kind = part.get("type")
        if not isinstance(kind, str):
            raise _missing(f"{at}[{number}].type")
        if not _PARTS.fullmatch(kind):
            raise _error(f"{at}[{number}].type", "is not a type of part", "invalid_value")
        if kind in ("text", "refusal") and not isinstance(part.get(kind), str):
            raise _missing(f"{at}[{number}].{kind}", "as a text")


def _check_tools(tools: Sequence[Mapping[str, Any]]) -> None:
    if not tools:
        raise _error("tools", "must have at least one tool, or be left out")
    for number, tool in enumerate(tools):
        at = f"tools[{number}]"
        if tool.get("type") is None:
            raise _missing(f"{at}.type")
        if tool["type"] != "function":
            raise _error(f"{at}.type", "must be function", "unsupported_value")
        function = tool.get("function")
        if not isinstance(function, dict):
            raise _missing(f"{at}.function", "as an object")
        _check_name(f"{at}.function.name", function.get("name"))
        if not isinstance(function.get("parameters", {}), dict | None):
            raise _error(f"{at}.function.parameters", "must be a JSON schema")


def _check_choice(choice: Any, tools: Sequence[Mapping[str, Any]] | None) -> None:
    if choice in (None, "none"):
        return
    if not tools:
        raise _error("tool_choice", "is only allowed with tools")
    if isinstance(choice, str) and choice in _CHOICES:
        return
    if not isinstance(choice, dict) or choice.get("type", "function") != "function":
        raise _error("tool_choice", f'must be {", ".join(_CHOICES)}, or {{"type": "function", "function": {{"name": ...}}}}')
    function = choice.get("function")
    if not isinstance(function, dict):
        raise _missing("tool_choice.function", "as an object")
    if not isinstance(function.get("name"), str):
        raise _missing("tool_choice.function.name")
    if function["name"] not in [tool["function"]["name"] for tool in tools]:
        raise _error("tool_choice", "names a function that is not among tools")


def _check_format(given: Mapping[str, Any] | None) -> None:
    """vLLM's own formats (`structural_tag`) are its to check."""
    if given is None or given.get("type") == "structural_tag":
        return
    kind = given.get("type")
    if kind is None:
        raise _missing("response_format.type")
    if kind not in _FORMATS:
        raise _error("response_format.type", f"must be {', '.join(_FORMATS)}")
    if kind != "json_schema":
        return
    schema = given.get("json_schema")
    if not isinstance(schema, dict):
        raise _missing("response_format.json_schema", "as an object")
    _check_name("response_format.json_schema.name", schema.get("name"))
    if not isinstance(schema.get("schema"), dict):
        raise _missing("response_format.json_schema.schema", "as a JSON schema")


def _check_name(at: str, name: Any) -> None:
    if name is None:
        raise _missing(at)
    if not isinstance(name, str) or not _NAME.match(name):
        raise _error(at, "must have 1 to 64 letters, digits, _ or -")


def _missing(at: str, where: str = "") -> InvalidRequestError:
    return InvalidRequestError(f"{at} is required{where and ' ' + where}.", param=at, code="missing_required_parameter")


def _error(at: str, what: str, code: str = "invalid_value") -> InvalidRequestError:
    return InvalidRequestError(f"{at} {what}.", param=at, code=code)

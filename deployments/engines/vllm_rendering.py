"""What vLLM makes of a request's body before its engine sees it, by the routes' own code (module paths of vLLM 0.32)."""

from typing import Any


async def rendered(state: Any, path: str, body: bytes) -> Any:
    """The engine's inputs, a list with one for each prompt; something else where there is an error. Raises what vLLM does.

    `state`: of vLLM's application.
    """
    renderer = state.online_renderer
    match path:
        case "/v1/completions":
            from vllm.entrypoints.openai.completion.protocol import CompletionRequest

            return await renderer.render_completion(CompletionRequest.model_validate_json(body), skip_mm_cache=True)
        case "/v1/responses":
            from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

            response = await renderer.render_responses(ResponsesRequest.model_validate_json(body), skip_mm_cache=True)
            return [response.engine_input]
        case "/v1/messages":
            chat = await _as_chat(state.anthropic_serving_messages, body)
        case _:
            from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

            chat = ChatCompletionRequest.model_validate_json(body)
    result = await renderer.render_chat(chat, skip_mm_cache=True)
    return result[1] if isinstance(result, tuple) else []


async def _as_chat(serving: Any, body: bytes) -> Any:
    """The chat that vLLM makes of one of Anthropic's requests."""
    from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest

    request = AnthropicMessagesRequest.model_validate_json(body)
    is_off = request.thinking is not None and request.thinking.type == "disabled"
    effort = await serving._get_disabled_thinking_effort() if is_off else "none"
    return serving.to_chat_completion_request(request, merge_inline_system=serving._merge_inline_system, disabled_thinking_effort=effort)

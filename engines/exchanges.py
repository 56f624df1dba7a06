"""Questions to a running engine that are not generations, each as a generator: it yields a request and gets the answer.

So the same words serve the sync session, the async one and the gateway, which only differ in how they send.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from engines.generation import Draft, Post, Target, Template
from engines.messages import Messages, has_system, has_tools, read_messages
from engines.requests import CHAT_PATH, fitted, refuse_without
from engines.streaming import refusal_of
from registry.errors import InvalidRequestError, UnsupportedParameterError

T = TypeVar("T")

# Yields a request, and is sent the status and the body of its answer.
Exchange = Generator[Post, tuple[int, bytes], T]
Asked = Exchange[Mapping[str, Any]]

_USER = {"role": "user", "content": "Hello"}
_SYSTEM = {"role": "system", "content": "Be brief"}
_TOOL = {"type": "function", "function": {"name": "probe", "description": "", "parameters": {"type": "object"}}}


def read_template(target: Target) -> Exchange[Template]:
    """Return what the model's chat template knows: as the server says, or seen from what it makes of messages."""
    if target.wire.counts_by_text:
        props = yield from _ask(target, Post("/props", None))
        caps = props.get("chat_template_caps") or {}
        return Template(caps.get("supports_system_role", True), caps.get("supports_tools", False))
    plain = yield from _try_tokens(target, [_USER])
    with_system = yield from _try_tokens(target, [_SYSTEM, _USER])
    with_tools = yield from _try_tokens(target, [_USER], [_TOOL])
    return Template(with_system not in (None, plain), with_tools not in (None, plain))


def count_tokens(target: Target, messages: Messages, template: Template | None) -> Exchange[int]:
    """Return how many tokens `messages` are as a prompt; `template` is asked for where it matters and is None."""
    tokens = yield from prompt_tokens(target, messages, template)
    return len(tokens)


def prompt_tokens(target: Target, messages: Messages, template: Template | None) -> Exchange[list[int]]:
    """Return the tokens that `messages` are as a prompt; `template` is asked for where it matters and is None."""
    refuse_without(target, "messages", ability="chat")
    read = read_messages(messages)
    if not target.wire.is_endpoint and (has_system(read) or has_tools(read)):
        known = template or (yield from read_template(target))
        read = fitted(target, Draft(CHAT_PATH, {"messages": read}), known).body["messages"]  # type: ignore[assignment]
    if target.wire.is_endpoint:
        return (yield from _tokens_elsewhere(target, _tokenize_messages(target, read, ())))
    if not target.wire.counts_by_text:
        answer = yield from _ask(target, _tokenize_messages(target, read, ()))
        return list(answer["tokens"])
    rendered = yield from _ask(target, _post("/apply-template", {"messages": read}))
    body = {"content": rendered["prompt"], "add_special": True, "parse_special": True}
    answer = yield from _ask(target, _post("/tokenize", body))
    return list(answer["tokens"])


def count_text(target: Target, text: str) -> Exchange[int]:
    """Return how many tokens a text is by itself, without those that begin a prompt."""
    tokens = yield from text_tokens(target, text)
    return len(tokens)


def count_reasoning(target: Target, text: str) -> Exchange[int]:
    """Return how many tokens of an answer its reasoning was, 0 where an endpoint does not count."""
    try:
        return (yield from count_text(target, text))
    except UnsupportedParameterError:
        return 0


def text_tokens(target: Target, text: object) -> Exchange[list[int]]:
    """Return the tokens of a text by itself, without those that begin a prompt."""
    if not isinstance(text, str):
        raise InvalidRequestError("`prompt` must be a text", parameter="prompt")
    if target.wire.counts_by_text:
        answer = yield from _ask(target, _post("/tokenize", {"content": text, "add_special": False}))
        return list(answer["tokens"])
    post = _post("/tokenize", {"model": target.name, "prompt": text, "add_special_tokens": False})
    if target.wire.is_endpoint:
        return (yield from _tokens_elsewhere(target, post))
    answer = yield from _ask(target, post)
    return list(answer["tokens"])


def _tokens_elsewhere(target: Target, post: Post) -> Exchange[list[int]]:
    """Return the tokens that an endpoint makes; raises UnsupportedParameterError where it has no route for that."""
    status, body = yield post
    if status in (404, 405):
        message = f"`{target.engine}` does not count tokens: it has no `{post.path}`"
        raise UnsupportedParameterError(message, parameter="messages", engine=target.engine)
    return list(_read_answer(target, status, body)["tokens"])


class Embeddings(NamedTuple):
    """A vector for each text, in their order, and the tokens that all texts were."""

    vectors: list[list[float]]
    prompt_tokens: int


def embed(target: Target, texts: Sequence[str]) -> Exchange[Embeddings]:
    """Return the vectors of texts."""
    refuse_without(target, "texts", feature="embeddings", ability="embed")
    given: object = texts
    if not isinstance(given, list | tuple) or not given or not all(isinstance(text, str) and text for text in given):
        raise InvalidRequestError("`texts` must be a list of texts, none of them empty", parameter="texts")
    body = {"model": target.name, "input": list(given), "encoding_format": "float"}
    answer = yield from _ask(target, _post("/v1/embeddings", body))
    vectors = [each["embedding"] for each in sorted(answer["data"], key=lambda each: each["index"])]
    return Embeddings(vectors, answer["usage"]["prompt_tokens"])


def _tokenize_messages(target: Target, messages: Sequence[Any], tools: Sequence[Any]) -> Post:
    offered = {"tools": list(tools)} if tools else {}
    body = {"model": target.name, "messages": list(messages), **offered}
    return _post("/tokenize", body)


def _try_tokens(target: Target, messages: Sequence[Any], tools: Sequence[Any] = ()) -> Exchange[list[int] | None]:
    """Return the tokens that messages become, None where the template refuses them."""
    status, body = yield _tokenize_messages(target, messages, tools)
    if status == 400:
        return None
    return list(_read_answer(target, status, body)["tokens"])


def _ask(target: Target, post: Post) -> Asked:
    status, body = yield post
    return _read_answer(target, status, body)


def _read_answer(target: Target, status: int, body: bytes) -> Mapping[str, Any]:
    answer = json.loads(body) if status == 200 else None
    if not isinstance(answer, dict):
        raise refusal_of(target.engine, status, body)
    return answer


def _post(path: str, body: Mapping[str, object]) -> Post:
    return Post(path, json.dumps(body).encode())

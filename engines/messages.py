"""Conversations: what may be in them, and how they are fitted to a template that knows less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engines.tools import read_calls
from registry.errors import InvalidRequestError

Message = Mapping[str, Any]
Messages = str | Sequence[Message]

ROLES: Mapping[str, str] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
# What a message of each role may have beside its role and its content.
KEYS: Mapping[str, frozenset[str]] = {"assistant": frozenset({"tool_calls"}), "tool": frozenset({"tool_call_id"})}


def read_messages(messages: Messages) -> list[dict[str, Any]]:
    """Return the conversation as roles and texts; a text is one user message, parts of text are joined.

    Raises InvalidRequestError for no messages, and for roles, keys and contents that there are not.
    """
    given: object = [{"role": "user", "content": messages}] if isinstance(messages, str) and messages else messages
    if not isinstance(given, list | tuple) or not given:
        raise InvalidRequestError("There must be a message, or a text that is not empty", parameter="messages")
    return [_read_message(message, f"messages.{index}") for index, message in enumerate(given)]


def has_system(messages: Sequence[Message]) -> bool:
    return any(message["role"] == "system" for message in messages)


def has_tools(messages: Sequence[Message]) -> bool:
    """True if somebody called a tool in the conversation."""
    return any(message["role"] == "tool" or "tool_calls" in message for message in messages)


def merge_system(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the conversation without system messages: their text is put before the first user message.

    With a blank line between them, as mistral-common does for the models whose template knows no such role.
    """
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    rest = [dict(message) for message in messages if message["role"] != "system"]
    first = next((message for message in rest if message["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": system}, *rest]
    first["content"] = f"{system}\n\n{first['content']}"
    return rest


def _read_message(message: object, where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"`{where}` must have a role and a content, not be `{message!r}`", parameter=where)
    given = {key: value for key, value in message.items() if value is not None}
    role = ROLES.get(str(given.get("role")))
    if role is None:
        known = ", ".join(f"`{name}`" for name in ROLES)
        raise InvalidRequestError(
            f"`{where}.role` must be one of {known}, not `{given.get('role')}`", parameter=f"{where}.role"
        )
    more = given.keys() & KEYS.get(role, frozenset())
    for key in given:
        if key not in ("role", "content", *more):
            raise InvalidRequestError(f"`{where}` has the key `{key}`, which is not supported", parameter=where)
    return {"role": role, **_read_rest(given, where)}


def _read_rest(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return content and what belongs to calls of tools; a message that calls need not say anything."""
    if "tool_calls" in given:
        content = _read_content(given.get("content", ""), f"{where}.content")
        return {"content": content, "tool_calls": read_calls(given["tool_calls"], f"{where}.tool_calls")}
    identity = {"tool_call_id": str(given["tool_call_id"])} if "tool_call_id" in given else {}
    return {"content": _read_content(given.get("content"), f"{where}.content"), **identity}


def _read_content(content: object, where: str) -> str:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list | tuple):
        raise InvalidRequestError(f"`{where}` must be a text or a list of text parts", parameter=where)
    return "".join(_read_part(part, f"{where}.{index}") for index, part in enumerate(parts))


def _read_part(part: object, where: str) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get("text") if isinstance(part, Mapping) and kind == "text" else None
    if not isinstance(text, str):
        given = f", not `{kind}`" if isinstance(kind, str) and kind != "text" else ""
        raise InvalidRequestError(
            f"`{where}` must be of type `text`{given}: the model reads text only", parameter=where
        )
    return text

"""The options that our own runners share, those of `runners/lib/openai_server.py`."""

from __future__ import annotations

from collections.abc import Iterator

from engines.base import Address, Settings
from registry.spec import Chat

# How models write calls of tools, of those that the catalogue names: what `runners/lib/openai_tools.py` reads.
TOOL_FORMATS = ("hermes", "qwen", "mistral")


def server_options(settings: Settings, address: Address) -> tuple[str, ...]:
    """Return what to serve, where, and how its conversations are written."""
    return (
        *("--model", str(settings.model_path.absolute())),
        *("--alias", settings.name),
        *address.as_options("--socket"),
        *("--ctx-size", str(settings.context_length)),
        *("--parallel", str(settings.slots)),
        *_chat_options(settings.chat),
    )


def _chat_options(chat: Chat) -> Iterator[str]:
    if chat.template is not None:
        yield from ("--chat-template", chat.template)
    if chat.reasoning is not None and chat.reasoning.start and chat.reasoning.end:
        yield from ("--reasoning-start", chat.reasoning.start, "--reasoning-end", chat.reasoning.end)
    if chat.tool_calls in TOOL_FORMATS:
        yield from ("--tool-calls", chat.tool_calls)

"""A model without weights, for tests of programs that use one: a real engine that says what it is told to say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from engines.tools import ToolCall

if TYPE_CHECKING:
    from launcher.model import LaunchedModel
    from launcher.plans import Plan
    from registry.spec import Model

# A text, a call of a tool, or several calls at once.
FakeReply = str | ToolCall | Sequence[ToolCall]
FakeReplies = Sequence[FakeReply] | Mapping[str, FakeReply]

ABILITIES = ("chat", "embed", "generate", "infill", "tools")


def fake_model(
    replies: FakeReplies | None = None,
    *,
    name: str = "fake-model",
    context_length: int = 8192,
    reasoning: str | None = None,
    tokens_per_s: float | None = None,
) -> LaunchedModel:
    """Return a handle on the engine `echo` in a process of its own: no network, no weights, ready in a moment.

    `replies` are given in turn, or by what the user said last; a request for which there is none raises
    GenerationError. Without them a request's own last words are the answer, a JSON schema's is the least that satisfies
    it, and a tool that must be called is. Tokens are words. `reasoning` is thought before each answer.
    """
    from launcher.instance import start_instance
    from launcher.model import LaunchedModel
    from registry.progress import ignore

    arguments = {"tokens_per_second": tokens_per_s, "thinks": reasoning, "replies": _as_json(replies)}
    plan = _plan(_entry(name, reasons=reasoning is not None), context_length, arguments)
    return LaunchedModel(start_instance(plan, ignore, is_probed=False))  # a probe would be given the first reply


def _entry(name: str, *, reasons: bool) -> Model:
    """Return a catalogue's entry for a model that is nowhere."""
    from registry.spec import Chat, Model, Reasoning, Source, Spec

    chat = Chat(reasoning=Reasoning(hybrid=True)) if reasons else Chat()
    spec = Spec("gguf", 0, ("none",), (Source("local", name, file=name),))
    return Model(name, (spec,), abilities=ABILITIES, chat=chat)


def _plan(entry: Model, context_length: int, arguments: Mapping[str, object]) -> Plan:
    from launcher.planning import Request, plan_found
    from launcher.plans import Asked
    from registry.catalogue import Found

    request = Request(engine="echo", context_length=context_length, engine_args=arguments)
    return plan_found(Found(entry), Asked(entry.name, request))


def _as_json(replies: FakeReplies | None) -> str | None:
    if replies is None:
        return None
    if isinstance(replies, str):
        raise TypeError(f"replies are a list, or a mapping by what is asked: replies=[{replies!r}]")
    if isinstance(replies, Mapping):
        return json.dumps({asked: _plain(reply) for asked, reply in replies.items()})
    return json.dumps([_plain(reply) for reply in replies])


def _plain(reply: FakeReply) -> object:
    if isinstance(reply, str):
        return reply
    calls = [reply] if isinstance(reply, ToolCall) else reply
    return [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls]

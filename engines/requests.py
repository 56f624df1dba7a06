"""Requests as engines take them, built from a closed list of fields; what cannot be honoured is refused here.

Nothing is sent here: whoever sends, the sync and the async session and the gateway, gets the same request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engines.generation import DEFAULTS, WHOLE, Draft, Target, Template, check_sampling
from engines.messages import Messages, has_system, has_tools, merge_system, read_messages
from engines.structured import Schema, read_schema
from engines.tools import Tool, call_schema, read_choice, read_tools
from registry.errors import ContextOverflowError, InvalidRequestError, UnsupportedParameterError
from registry.spec import GenerationDefaults

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
INFILL_PATH = "/infill"


def completion_request(target: Target, prompt: str, sampling: Mapping[str, object]) -> Draft:
    """Return the request that goes on with `prompt` as it stands; raises the errors of `check_sampling` and more.

    InvalidRequestError for an empty prompt, UnsupportedParameterError, ContextOverflowError for `max_tokens`.
    """
    given = _read_raw_sampling(target, sampling)
    wanted = _pop_logprobs(given)
    # No alternative at all is for llama.cpp no logarithm at all (2026.10).
    logprobs = {} if wanted is None else {"logprobs": max(1, wanted)}
    draft = _draft(target, COMPLETION_PATH, {"prompt": _read_prompt(prompt)}, given, logprobs)
    return draft._replace(logprobs=wanted)


def infill_request(target: Target, prefix: str, suffix: str, sampling: Mapping[str, object]) -> Draft:
    """Return the request for the text between `prefix` and `suffix`; raises as `completion_request`."""
    refuse_without(target, "infill", feature="infill", ability="infill")
    given = _read_raw_sampling(target, sampling)
    if "logprobs" in given:
        raise _unsupported(target, "logprobs", "`logprobs` are not there for what is filled in")
    texts: tuple[object, ...] = (prefix, suffix)
    if not all(isinstance(text, str) for text in texts) or not any(texts):
        raise InvalidRequestError("There must be a text before or after what is filled in", parameter="prefix")
    return _draft(target, INFILL_PATH, {"input_prefix": prefix, "input_suffix": suffix}, given, {})


def chat_request(
    target: Target,
    messages: Messages,
    sampling: Mapping[str, object],
    *,
    tools: Sequence[Tool] = (),
    tool_choice: object = "auto",
    json_schema: Schema | None = None,
) -> Draft:
    """Return the request that answers `messages` through the model's template; raises as `completion_request`."""
    refuse_without(target, "messages", ability="chat")
    given = check_sampling(sampling)
    read = read_messages(messages)
    offered = _offer_tools(target, tools, tool_choice)
    wanted = _pop_logprobs(given)
    more = {
        **offered,
        **_response_format(target, json_schema),
        **_chat_logprobs(target, wanted),
        **_reasoning(target, given.pop("reasoning", "auto")),
    }
    _refuse_pairs(offered, json_schema, wanted)
    draft = _draft(target, CHAT_PATH, {"messages": read}, given, more)
    depends = not target.wire.is_endpoint and (has_system(read) or has_tools(read) or bool(offered))
    return draft._replace(
        depends_on_template=depends, schema=json_schema, logprobs=wanted, is_call="response_format" in offered
    )


def fitted(target: Target, draft: Draft, template: Template) -> Draft:
    """Return the request as the template understands it; raises UnsupportedParameterError for tools that it does not.

    A system message that the template refuses is merged into the first user message, with a note.
    """
    messages: Any = draft.body["messages"]
    if not template.has_tools and ("tools" in draft.body or has_tools(messages)):
        message = f"`tools` need a chat template that knows them, and that of `{target.name}` does not"
        raise _unsupported_by_model(target, "tools", "tools", message)
    if template.has_system_role or not has_system(messages):
        return draft
    note = f"the template of `{target.name}` has no system role: the system message begins the first user message"
    return draft._replace(body={**draft.body, "messages": merge_system(messages)}, notes=(note,))


def refuse_without(target: Target, parameter: str, *, feature: str | None = None, ability: str | None = None) -> None:
    """Raise UnsupportedParameterError where the engine lacks a feature, or the model an ability."""
    if feature is not None and feature not in target.features:
        raise _unsupported(target, parameter, f"`{target.engine}` cannot honour `{parameter}`", engines_with(feature))
    if ability is not None and ability not in target.abilities:
        raise _unsupported_by_model(target, parameter, ability, f"`{target.name}` has not the ability `{ability}`")


def engines_with(feature: str) -> tuple[str, ...]:
    """Return the engines that have a feature."""
    from engines.index import CAPABILITIES

    return tuple(each.engine for each in CAPABILITIES if feature in each.features and each.automatic)


def _engines_taking(parameter: str) -> tuple[str, ...]:
    from engines.index import CAPABILITIES, engine_named

    engines = [engine_named(each.engine) for each in CAPABILITIES if each.automatic]
    return tuple(engine.name for engine in engines if parameter not in engine.wire.unsupported)


def _unsupported(
    target: Target, parameter: str, message: str, engines: tuple[str, ...] = ()
) -> UnsupportedParameterError:
    can = " or ".join(f"`{engine}`" for engine in engines)
    hint = f"{can} can: `--engine`" if can else None
    return UnsupportedParameterError(message, parameter=parameter, engine=target.engine, engines=engines, hint=hint)


def _unsupported_by_model(target: Target, parameter: str, ability: str, message: str) -> UnsupportedParameterError:
    models = tuple(name for name in target.models_with(ability) if name != target.name)
    hint = f"launch {models[0]}" if models else f"launch list: models with the ability `{ability}`"
    return UnsupportedParameterError(message, parameter=parameter, engine=target.engine, models=models, hint=hint)


def _draft(
    target: Target,
    path: str,
    subject: Mapping[str, object],
    given: dict[str, object],
    more: Mapping[str, object],
) -> Draft:
    timeout_s = given.pop("timeout_s", None)
    assert timeout_s is None or isinstance(timeout_s, int | float)
    values = _complete(target, given)
    body = {
        "model": target.name,
        **subject,
        **{target.wire.names.get(name, name): value for name, value in values.items()},
        **more,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    return Draft(path, body, timeout_s)


def _read_raw_sampling(target: Target, sampling: Mapping[str, object]) -> dict[str, object]:
    """Return the checked fields of a request without a template, and so without reasoning."""
    given = check_sampling(sampling)
    if given.pop("reasoning", "auto") != "auto":
        raise InvalidRequestError("`reasoning` needs the model's template: use `chat`", parameter="reasoning")
    if "logprobs" in given:
        refuse_without(target, "logprobs", feature="logprobs")
    return given


def _read_prompt(prompt: object) -> str:
    if not isinstance(prompt, str) or not prompt:
        raise InvalidRequestError("The prompt must be a text that is not empty", parameter="prompt")
    return prompt


def _pop_logprobs(given: dict[str, object]) -> int | None:
    wanted = given.pop("logprobs", None)
    assert wanted is None or isinstance(wanted, int)
    return wanted


def _offer_tools(target: Target, tools: Sequence[Tool], choice: object) -> dict[str, object]:
    read = read_tools(tools)
    if not read and choice in ("auto", "none"):
        return {}
    refuse_without(target, "tools", feature="tools")
    how, offered = read_choice(choice, read)
    if how == "required" and target.wire.calls_by_schema:
        return {"tools": offered, "tool_choice": "none", **_format(call_schema(offered))}
    return {"tools": offered, "tool_choice": how}


def _response_format(target: Target, source: Schema | None) -> dict[str, object]:
    if source is None:
        return {}
    refuse_without(target, "json_schema", feature="json_schema")
    return _format(read_schema(source))


def _format(schema: Mapping[str, Any]) -> dict[str, object]:
    wrapped = {"name": "answer", "schema": schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": wrapped}}


def _chat_logprobs(target: Target, wanted: int | None) -> dict[str, object]:
    if wanted is None:
        return {}
    refuse_without(target, "logprobs", feature="logprobs")
    return {"logprobs": True, "top_logprobs": max(1, wanted)}


def _reasoning(target: Target, effort: object) -> dict[str, object]:
    """Return what switches the model's thinking; nothing where it may do as it likes."""
    reasoning = target.reasoning
    if target.wire.is_endpoint and effort != "auto":
        refuse_without(target, "reasoning", feature="reasoning")
        return {"reasoning": effort}
    if effort == "auto" or (effort == "off" and reasoning is None):
        return {}
    if reasoning is None:
        raise _unsupported_by_model(target, "reasoning", "reasoning", f"`{target.name}` does not reason")
    refuse_without(target, "reasoning", feature="reasoning")
    if effort == "off" and not reasoning.hybrid:
        raise _unsupported(target, "reasoning", f"`{target.name}` always reasons: it cannot be told not to")
    switch = {"chat_template_kwargs": {"enable_thinking": effort != "off"}} if reasoning.hybrid else {}
    if effort in ("on", "off"):
        return {**switch}
    refuse_without(target, "reasoning", feature="reasoning_budget")
    return {**switch, target.wire.names.get("reasoning_budget", "reasoning_budget"): effort}


def _refuse_pairs(offered: Mapping[str, object], schema: Schema | None, logprobs: object) -> None:
    """Raise for what llama.cpp does not do together (2026.10), so that it is the same on all engines."""
    for name, value in (("json_schema", schema), ("logprobs", logprobs)):
        if offered and value is not None:
            raise InvalidRequestError(f"`{name}` and `tools` do not go together", parameter=name)


def _complete(target: Target, given: Mapping[str, object]) -> dict[str, object]:
    """Return every field that the engine is sent: what servers would choose themselves differs between them."""
    _refuse_unsupported(target, given)
    _refuse_overflow(target, given)
    if target.wire.is_endpoint:
        return dict(given)
    limit = min(most for most in (target.defaults.max_tokens, target.context_length) if most is not None)
    values = {**DEFAULTS, "max_tokens": limit, **_defaults_of(target.defaults), **given}
    if values["top_k"] == -1:
        values["top_k"] = 0
    if values["temperature"] == 0:
        values.update(WHOLE)
    return {name: value for name, value in values.items() if name not in target.wire.unsupported}


def _defaults_of(defaults: GenerationDefaults) -> dict[str, object]:
    values = {name: value for name, value in defaults._asdict().items() if name != "max_tokens"}
    return {name: value for name, value in values.items() if value is not None}


def _refuse_unsupported(target: Target, given: Iterable[str]) -> None:
    for name in given:
        if name in target.wire.unsupported:
            message = f"`{target.engine}` cannot honour `{name}`"
            raise _unsupported(target, name, message, _engines_taking(name))


def _refuse_overflow(target: Target, given: Mapping[str, object]) -> None:
    max_tokens, context_length = given.get("max_tokens"), target.context_length
    if isinstance(max_tokens, int) and context_length is not None and max_tokens > context_length:
        raise ContextOverflowError(
            f"`max_tokens` of {max_tokens:,} is more than the context of {context_length:,} tokens",
            prompt_tokens=0,
            context_length=context_length,
            hint="`--context-length` sets the context of each request",
        )

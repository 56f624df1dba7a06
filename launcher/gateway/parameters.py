"""OpenAI's parameters, sorted: what is honoured, what changes nothing, what is refused, and what to use instead.

Data for `requests.py`, for `/docs`, and for the table in the documentation; a test holds it against OpenAI's own types.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal, NamedTuple

Route = Literal["chat", "completions", "embeddings"]
# honoured · neutral: only the value that changes nothing is taken · ignored: named in a response header · refused
Treatment = Literal["honoured", "neutral", "ignored", "refused"]

PATHS: Mapping[Route, str] = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
CHAT: tuple[Route, ...] = ("chat",)
COMPLETIONS: tuple[Route, ...] = ("completions",)
EMBEDDINGS: tuple[Route, ...] = ("embeddings",)
GENERATING: tuple[Route, ...] = ("chat", "completions")
ALL: tuple[Route, ...] = ("chat", "completions", "embeddings")


class Parameter(NamedTuple):
    """A parameter of some routes and what becomes of it.

    `meaning` is for readers. `field` is ours that it sets, for those of sampling. A neutral one may only have the value
    `neutral`; `instead` is the parameter that does what a refused one would.
    """

    name: str
    routes: tuple[Route, ...]
    treatment: Treatment
    meaning: str
    field: str | None = None
    neutral: object = None
    instead: str | None = None


def _honoured(name: str, routes: tuple[Route, ...], meaning: str) -> Parameter:
    return Parameter(name, routes, "honoured", meaning)


def _sampling(name: str, meaning: str, routes: tuple[Route, ...] = GENERATING, field: str | None = None) -> Parameter:
    return Parameter(name, routes, "honoured", meaning, field=field or name)


def _neutral(name: str, routes: tuple[Route, ...], value: object) -> Parameter:
    return Parameter(name, routes, "neutral", "", neutral=value)


def _ignored(name: str, routes: tuple[Route, ...], meaning: str) -> Parameter:
    return Parameter(name, routes, "ignored", meaning)


def _refused(name: str, routes: tuple[Route, ...], meaning: str, instead: str | None = None) -> Parameter:
    return Parameter(name, routes, "refused", meaning, instead=instead)


PARAMETERS: tuple[Parameter, ...] = (
    _honoured("model", ALL, "a name, an alias or a repo id of a model served; may be left out where there is one"),
    _honoured("messages", CHAT, "roles system, developer, user, assistant, tool; a text, or parts of type `text`"),
    _honoured("prompt", COMPLETIONS, "one text, also as a list of one"),
    _honoured("input", EMBEDDINGS, "a text or a list of texts"),
    _honoured("stream", GENERATING, "true or false"),
    _honoured("stream_options", GENERATING, "`include_usage`; `include_obfuscation` changes nothing"),
    _sampling("max_tokens", "at least 1; without it, the rest of the context"),
    _sampling("max_completion_tokens", "the same as `max_tokens`", CHAT, "max_tokens"),
    _sampling("temperature", "0 to 2"),
    _sampling("top_p", "above 0, at most 1"),
    _sampling("seed", "a whole number of 32 bits"),
    _sampling("stop", "a text or a list of texts"),
    _honoured("logprobs", CHAT, "true or false"),
    _honoured("top_logprobs", CHAT, "0 to 20, with `logprobs`"),
    _sampling("logprobs", "0 to 20", COMPLETIONS),
    _honoured("response_format", CHAT, "`text`, `json_object`, or `json_schema` with a schema"),
    _honoured("tools", CHAT, "functions"),
    _honoured("tool_choice", CHAT, "`auto`, `none`, `required`, or a function by name"),
    _honoured("reasoning_effort", CHAT, "`none`: no thinking; for more see `reasoning`"),
    _sampling("reasoning", "ours: `on`, `off`, `auto`, or a number of tokens", CHAT),
    _honoured("chat_template_kwargs", CHAT, "vLLM's: `enable_thinking`, true or false"),
    _sampling("top_k", "ours: the number of likeliest tokens to choose from; 0 or -1 for all"),
    _sampling("min_p", "ours: 0 to 1, the least share of the likeliest token's probability"),
    _sampling("repetition_penalty", "ours: above 0; 1 changes nothing"),
    _honoured("encoding_format", EMBEDDINGS, "`float` or `base64`"),
    _neutral("n", GENERATING, 1),
    _neutral("best_of", COMPLETIONS, 1),
    _neutral("echo", COMPLETIONS, False),
    _neutral("frequency_penalty", GENERATING, 0),
    _neutral("presence_penalty", GENERATING, 0),
    _neutral("logit_bias", GENERATING, {}),
    _neutral("modalities", CHAT, ["text"]),
    _ignored("metadata", GENERATING, "belongs to OpenAI's own storage"),
    _ignored("parallel_tool_calls", CHAT, "models call as many tools as they like"),
    _ignored("prompt_cache_key", GENERATING, "engines recognise prompts by themselves"),
    _ignored("prompt_cache_options", GENERATING, "engines recognise prompts by themselves"),
    _ignored("prompt_cache_retention", GENERATING, "engines recognise prompts by themselves"),
    _ignored("safety_identifier", GENERATING, "nobody is told who asks"),
    _ignored("service_tier", GENERATING, "there is one"),
    _ignored("store", GENERATING, "nothing is stored"),
    _ignored("user", ALL, "nobody is told who asks"),
    _ignored("verbosity", GENERATING, "a habit of OpenAI's models"),
    _refused("functions", CHAT, "older than tools", "tools"),
    _refused("function_call", CHAT, "older than tools", "tool_choice"),
    _refused("audio", CHAT, "models here read and write text"),
    _refused("moderation", CHAT, "nothing here judges texts"),
    _refused("prediction", CHAT, "no engine here takes one"),
    _refused("web_search_options", CHAT, "nothing here searches", "tools"),
    _refused("suffix", COMPLETIONS, "text is filled in by `launch NAME -p … --suffix …` and in Python"),
    _refused("dimensions", EMBEDDINGS, "vectors have the model's own length"),
)


@functools.cache
def parameters_of(route: Route) -> Mapping[str, Parameter]:
    """Return a route's parameters by name."""
    return {parameter.name: parameter for parameter in PARAMETERS if route in parameter.routes}


def meaning_of(parameter: Parameter) -> str:
    """Return in a sentence's part what becomes of a parameter."""
    match parameter.treatment:
        case "neutral":
            return f"only `{_as_json(parameter.neutral)}` is taken"
        case "refused" if parameter.instead is not None:
            return f"{parameter.meaning}: use `{parameter.instead}`"
    return parameter.meaning


def _as_json(value: object) -> str:
    import json

    return json.dumps(value)

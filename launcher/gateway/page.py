"""The page at `/docs`: what there is to ask for, how, and what becomes of each parameter. Nothing foreign in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape

from engines.base import COUNT_TOKENS, MESSAGES, RESPONSES
from launcher.gateway.offers import Offer
from launcher.gateway.parameters import PATHS, Route, meaning_of, parameters_of

ROUTES: Sequence[tuple[str, str, str]] = (
    ("POST", PATHS["chat"], "an answer to a conversation, whole or as a stream"),
    ("POST", PATHS["completions"], "a continuation of a text as it stands"),
    ("POST", PATHS["embeddings"], "vectors of texts, where the model makes them"),
    ("POST", RESPONSES, "OpenAI's newer interface, where the engine's own server has it"),
    ("POST", MESSAGES, "Anthropic's interface, where the engine's own server has it"),
    ("POST", COUNT_TOKENS, "the tokens of such a request"),
    ("POST", "/tokenize", "the tokens of messages or of a prompt"),
    ("GET", "/v1/models", "the models served, with aliases and context length"),
    ("GET", "/health", "200 while the endpoint is there"),
    ("GET", "/ready", "503 while a model that is there from the start cannot be had, else 200; and each model's state"),
    ("GET", "/metrics", "counts and times in Prometheus' text form, the engines' own beside them"),
    ("GET", "/version", "the versions of launch and of each engine"),
)
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; border-bottom: 1px solid #8884 }
pre { overflow-x: auto; padding: .8rem; background: #8882 }
"""


def docs_page(origin: str, offers: Sequence[Offer]) -> str:
    """Return the page for an endpoint at `origin`, such as `http://127.0.0.1:8000`."""
    parts = [
        "<h1>model-launcher</h1>",
        f"<p>An OpenAI-compatible endpoint. Base URL for clients: <code>{escape(origin)}/v1</code></p>",
        "<h2>Models</h2>",
        _table(("name", "also", "engine", "context"), map(_model_row, offers)),
        *(_example(origin, each) for each in offers[:1]),
        "<h2>Routes</h2>",
        _table(("", "path", "answers"), [(verb, _code(path), escape(text)) for verb, path, text in ROUTES]),
        *(part for route in PATHS for part in _parameters(route)),
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>model-launcher</title><style>{STYLE}</style>"
    return head + "\n".join(parts) + "</html>\n"


def _model_row(offer: Offer) -> tuple[str, ...]:
    name, *also = map(_code, offer.names)
    context = offer.target.context_length
    return name, ", ".join(also), escape(offer.target.engine), "" if context is None else f"{context:,} tokens"


def _example(origin: str, offer: Offer) -> str:
    if "embed" in offer.target.abilities:
        path, asked = PATHS["embeddings"], {"input": "Hello"}
    elif "chat" in offer.target.abilities:
        path, asked = PATHS["chat"], {"messages": [{"role": "user", "content": "Hello"}]}  # type: ignore[dict-item]
    else:
        path, asked = PATHS["completions"], {"prompt": "Once upon a time"}
    body = json.dumps({"model": offer.names[0], **asked})
    command = f"""curl {origin}{path} \\
  -H "Content-Type: application/json" -H "Authorization: Bearer $OPENAI_API_KEY" \\
  -d '{body}'"""
    return f"<p>Without keys the second header may be left out.</p><pre>{escape(command)}</pre>"


def _parameters(route: Route) -> Iterator[str]:
    yield f"<h2>Parameters of <code>{PATHS[route]}</code></h2>"
    rows = [(_code(each.name), each.treatment, _marked(meaning_of(each))) for each in parameters_of(route).values()]
    yield _table(("parameter", "", ""), rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(head)}" for head in heads)
    lines = (head, *("".join(f"<td>{cell}" for cell in row) for row in rows))
    return "<table>" + "\n".join(f"<tr>{line}" for line in lines) + "</table>"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _marked(text: str) -> str:
    """Return HTML of a text whose literals are in backticks."""
    parts = text.split("`")
    return "".join(_code(part) if index % 2 else escape(part) for index, part in enumerate(parts))

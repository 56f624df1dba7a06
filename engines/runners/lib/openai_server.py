"""An OpenAI-compatible server in front of a model that is loaded in this process, as far as our session needs one.

    parser = argparse.ArgumentParser(...)
    add_arguments(parser)
    arguments = parser.parse_args()
    serve(MyBackend(arguments), arguments)

Routes: `/v1/chat/completions`, `/v1/completions`, `/v1/models`, `/tokenize` (of a prompt or a conversation) and
`/health`. It reads and checks what is asked, renders and counts prompts, refuses those that do not fit, ends answers at
stop strings, splits off the thinking, and writes streams or whole answers. A client that leaves closes its generation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import logging
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path

from aiohttp import web

from openai_answer import Answer, Envelope, Piece, error_event
from openai_backend import Backend, Generation, Message, RequestError, TemplateError, Token, Tool
from openai_request import Asked, read_chat, read_completion, read_tokenize
from openai_tools import FORMATS, call_schema
from reasoning import Tags

__all__ = [
    "Backend",
    "Generation",
    "Message",
    "RequestError",
    "TemplateError",
    "Token",
    "Tool",
    "add_arguments",
    "listen",
    "marks_of",
    "read_template",
    "serve",
]

Read = Callable[[object, frozenset[str]], Asked]
MOST_BODY_BYTES = 256 << 20
ERROR_TYPES = {400: "invalid_request_error", 404: "not_found_error"}
OPENING_TOKENS = 16  # of a prompt's end, in which a template may have opened the thinking


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every engine served by this module has."""
    parser.add_argument("--model", required=True, metavar="PATH", help="what to load")
    parser.add_argument("--alias", required=True, metavar="NAME", help="the model's name in answers")
    parser.add_argument("--socket", metavar="PATH", help="listen on this Unix socket")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--ctx-size", type=int, required=True, metavar="N", help="tokens promised to each request")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="requests that are answered at once")
    parser.add_argument("--reasoning-start", metavar="TAG", help="what the model writes before its thinking")
    parser.add_argument("--reasoning-end", metavar="TAG", help="what the model writes after its thinking")
    parser.add_argument("--tool-calls", choices=tuple(FORMATS), help="how the model writes its calls of tools")
    parser.add_argument("--chat-template", metavar="TEXT|FILE", help="instead of the model's own")


def marks_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return what the model writes around its thinking and its calls: part of its text even as special tokens."""
    marks = (arguments.reasoning_start, arguments.reasoning_end, *FORMATS.get(arguments.tool_calls, ()))
    return tuple(filter(None, marks))


def read_template(given: str) -> str:
    """Return a chat template that was given as its text, or as the name of its file."""
    return given if "{" in given or "\n" in given else Path(given).read_text(encoding="utf-8")


def serve(backend: Backend, arguments: argparse.Namespace) -> None:
    """Answer requests where the arguments say until the process is ended; it ends here where that cannot be."""
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(listen(backend, arguments))
    except OSError as error:
        sys.exit(f"{backend.name}: error: {error.strerror or error}")


async def listen(backend: Backend, arguments: argparse.Namespace) -> None:
    """Answer requests where the arguments say until the task is cancelled."""
    app = _Server(backend, arguments).app()
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    site: web.BaseSite
    if arguments.socket is not None:
        site = web.UnixSite(runner, arguments.socket)
    else:
        site = web.TCPSite(runner, arguments.host, arguments.port)
    try:
        await site.start()
        print(f"{backend.name}: ready at {runner.addresses[0]}", file=sys.stderr, flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


class _Server:
    """The routes; whatever is particular to a model is asked of the backend."""

    def __init__(self, backend: Backend, arguments: argparse.Namespace) -> None:
        self._backend = backend
        self._model = arguments.alias
        has_tags = arguments.reasoning_start is not None and arguments.reasoning_end is not None
        self._tags = Tags(arguments.reasoning_start, arguments.reasoning_end) if has_tags else None
        self._style = FORMATS.get(arguments.tool_calls)
        self._features = backend.features | ({"tools"} if self._style else set())
        self._identities = (f"{backend.name}-{os.getpid()}-{number}" for number in itertools.count(1))

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[_errors_as_json])
        app.router.add_get("/health", self._health)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completion)
        return app

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _models(self, request: web.Request) -> web.Response:
        model = {"id": self._model, "object": "model", "created": 0, "owned_by": self._backend.name}
        return web.json_response({"object": "list", "data": [model]})

    async def _tokenize(self, request: web.Request) -> web.Response:
        tokens = self._prompt_ids(await self._read(request, read_tokenize))
        return web.json_response({"tokens": tokens, "count": len(tokens)})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await self._read(request, read_chat))

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, await self._read(request, read_completion))

    async def _read(self, request: web.Request, read: Read) -> Asked:
        try:
            body = json.loads(await request.read())
        except ValueError as error:
            raise RequestError(f"the body is not JSON: {error}") from error
        return read(body, self._features)

    def _prompt_ids(self, asked: Asked) -> list[int]:
        if asked.prompt is not None:
            tokens = self._backend.encode(asked.prompt)
            return tokens if asked.is_prompt else tokens[len(self._backend.encode("")) :]
        rendered = self._backend.render(asked.messages, asked.tools, asked.template_options)
        if asked.tools and rendered == self._backend.render(asked.messages, (), asked.template_options):
            raise RequestError("the model's chat template knows no tools", "tools")
        return rendered

    async def _answer(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        prompt_ids = self._prompt_ids(asked)
        if asked.must_call:
            asked = asked._replace(json_schema=call_schema(asked.tools))
        generation = _generation(asked, prompt_ids, self._backend.context_length)
        # What is held to a schema from its first token on is no thinking, even where the template opened it.
        tags = self._tags if asked.is_chat and generation.json_schema is None else None
        is_open = tags is not None and self._is_open(prompt_ids, tags)
        answer = Answer(asked, len(prompt_ids), tags, is_open=is_open, style=self._style)
        envelope = Envelope(next(self._identities), self._model, is_chat=asked.is_chat)
        async with contextlib.aclosing(_pieces(self._backend, generation, answer)) as pieces:
            if asked.is_stream:
                counted = answer if asked.includes_usage else None
                return await _stream(request, pieces, envelope, counted)
            return web.json_response(envelope.whole([piece async for piece in pieces], answer))

    def _is_open(self, prompt_ids: Sequence[int], tags: Tags) -> bool:
        """Return whether the template wrote the start tag, so that the answer begins in the thinking."""
        return self._backend.decode(prompt_ids[-OPENING_TOKENS:]).rstrip().endswith(tags.start)


def _generation(asked: Asked, prompt_ids: list[int], context_length: int) -> Generation:
    """Return what to generate in the room that the prompt leaves; raises RequestError where it leaves none."""
    count = len(prompt_ids)
    if count >= context_length:
        message = f"the prompt has {count} tokens, the context {context_length}"
        raise RequestError(message, n_prompt_tokens=count, n_ctx=context_length)
    room = context_length - count
    values = {name: getattr(asked, name) for name in Generation._fields if name not in ("prompt_ids", "max_tokens")}
    return Generation(prompt_ids, min(asked.max_tokens or room, room), **values)


async def _pieces(backend: Backend, generation: Generation, answer: Answer) -> AsyncGenerator[Piece, None]:
    """Yield the pieces that have something in them, the last of them in any case."""
    async with contextlib.aclosing(backend.generate(generation)) as tokens:
        async for token in tokens:
            piece = answer.feed(token)
            if piece.text or piece.reasoning or piece.logprobs or answer.is_finished:
                yield piece
            if answer.is_finished:
                return
    yield answer.finish()


async def _stream(
    request: web.Request, pieces: AsyncGenerator[Piece, None], envelope: Envelope, counted: Answer | None
) -> web.StreamResponse:
    """Send the pieces as they come; what fails before the first is an answer of its own status."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    first = await anext(pieces)
    await response.prepare(request)
    await response.write(envelope.opening() + envelope.event(first))
    try:
        async for piece in pieces:
            await response.write(envelope.event(piece))
        await response.write(envelope.closing(counted))
    except ConnectionError:  # the client left
        raise
    except Exception as error:
        logging.exception("the answer broke off")
        await response.write(error_event(_error(500, _words_of(error))))
    await response.write_eof()
    return response


# --- errors ----------------------------------------------------------------------------------------------------------


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return _refusal(400, str(error), param=error.parameter, **error.facts)
    except TemplateError as error:
        return _refusal(400, f"the model's chat template refuses the conversation: {error}", param="messages")
    except web.HTTPException as error:
        return _refusal(error.status, error.reason)
    except ConnectionError:  # the client left
        raise
    except Exception as error:
        logging.exception("the request failed")
        return _refusal(500, _words_of(error))


def _refusal(status: int, message: str, **facts: object) -> web.Response:
    return web.json_response(_error(status, message, **facts), status=status)


def _error(status: int, message: str, **facts: object) -> dict[str, object]:
    """Return an error in OpenAI's shape, with facts in it as llama.cpp's server has them."""
    kind = "exceed_context_size_error" if "n_ctx" in facts else ERROR_TYPES.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "code": status, **facts}}


def _words_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

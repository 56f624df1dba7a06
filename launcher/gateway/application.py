"""The routes of the endpoint: from a client's request to the engine's stream, and back as it comes or folded."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

from engines.base import Address
from engines.connection import HEADERS, connection_error, open_client
from engines.exchanges import Exchange, count_text, embed, prompt_tokens, read_template, text_tokens
from engines.generation import Draft, Post, Reply, Target, Template
from engines.requests import fitted
from engines.streaming import StreamReader, refusal_of
from launcher.exposure import ON_LOOPBACK, Exposure
from launcher.gateway.admission import admission
from launcher.gateway.answers import (
    call_events,
    chat_completion,
    embeddings,
    error_event,
    error_response,
    http_error_response,
    noting_headers,
    text_completion,
)
from launcher.gateway.requests import Call, read_chat, read_completion, read_embeddings
from registry.errors import GenerationError, InvalidRequestError, LaunchError, UnknownModelError

T = TypeVar("T")

HEALTH_TIMEOUT_S = 5.0
# nginx would gather a stream into large pieces without the second one.
STREAM_HEADERS = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Served:
    """A running engine behind the endpoint; `names`, of which the first is listed, are what `model` may say."""

    names: tuple[str, ...]
    address: Address
    target: Target


def make_application(served: Sequence[Served], exposure: Exposure = ON_LOOPBACK) -> web.Application:
    """Return the endpoint for these engines; the first that has a name gets the requests for it."""
    return Gateway(served, exposure).application()


class Gateway:
    """The routes, and one client for each engine."""

    def __init__(self, served: Sequence[Served], exposure: Exposure) -> None:
        self._served = tuple(served)
        self._exposure = exposure
        self._by_name = {name.casefold(): one for one in reversed(self._served) for name in one.names}
        self._clients: dict[Address, aiohttp.ClientSession] = {}
        self._templates: dict[Address, Template] = {}
        self._created = int(time.time())

    def application(self) -> web.Application:
        application = web.Application(
            middlewares=[_shape_errors, admission(self._exposure)],
            client_max_size=self._exposure.limits.body_bytes,
        )
        application.cleanup_ctx.append(self._open_clients)
        application.router.add_get("/health", self.health)
        application.router.add_get("/v1/models", self.models)
        application.router.add_get("/v1/models/{name:.+}", self.model)
        application.router.add_post("/v1/chat/completions", self.chat)
        application.router.add_post("/v1/completions", self.complete)
        application.router.add_post("/v1/embeddings", self.embed)
        application.router.add_post("/tokenize", self.tokenize)
        return application

    async def _open_clients(self, application: web.Application) -> AsyncIterator[None]:
        self._clients = {one.address: open_client(one.address) for one in self._served}
        yield
        for client in self._clients.values():
            await client.close()

    async def health(self, request: web.Request) -> web.Response:
        """Answer 200 if all engines say that they are well."""
        for one in self._served:
            if not await self._is_healthy(one):
                raise GenerationError(f"`{one.target.engine}` does not answer for `{one.names[0]}`")
        return web.json_response({"status": "ok"})

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._describe(one) for one in self._served]})

    async def model(self, request: web.Request) -> web.Response:
        return web.json_response(self._describe(self._find(request.match_info["name"])))

    async def chat(self, request: web.Request) -> web.StreamResponse:
        data = await _read_json(request)
        served = self._find(data.get("model"))
        call = read_chat(served.target, data)
        return await self._answer(request, served, call, chat_completion)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        data = await _read_json(request)
        served = self._find(data.get("model"))
        call = read_completion(served.target, data)
        return await self._answer(request, served, call, text_completion)

    async def embed(self, request: web.Request) -> web.Response:
        data = await _read_json(request)
        served = self._find(data.get("model"))
        texts, in_base64 = read_embeddings(data)
        found = await self._run(served, embed(served.target, texts))
        return web.json_response(embeddings(served.names[0], found, in_base64=in_base64))

    async def tokenize(self, request: web.Request) -> web.Response:
        """Answer with the tokens of messages, the template included, or of a text, in the shape of vLLM's server."""
        data = await _read_json(request)
        target = (served := self._find(data.get("model"))).target
        if "messages" in data:
            tokens = await self._run(
                served, prompt_tokens(target, data["messages"], self._templates.get(served.address))
            )
        else:
            tokens = await self._run(served, text_tokens(target, data.get("prompt")))
        return web.json_response({"count": len(tokens), "max_model_len": target.context_length, "tokens": tokens})

    async def _answer(
        self, request: web.Request, served: Served, call: Call, shape: Callable[..., dict[str, Any]]
    ) -> web.StreamResponse:
        draft = await self._fit(served, call.draft)
        headers = noting_headers(call.ignored, draft.notes)
        async with await self._open(served, draft.post()) as upstream:
            pieces = _pieces(upstream, served.target.engine)
            if upstream.status != 200:
                raise refusal_of(served.target.engine, upstream.status, b"".join([piece async for piece in pieces]))
            if call.is_stream and not draft.is_call:
                return await _pass_on(request, pieces, headers)
            reader = StreamReader(served.target.engine, alternatives=draft.logprobs, is_call=draft.is_call)
            async for piece in pieces:
                reader.feed(piece)
            reply = await self._count_reasoning(served, reader.reply())
            if call.is_stream:
                return await _pass_on(
                    request, call_events(served.names[0], reply, wants_usage=call.wants_usage), headers
                )
            return web.json_response(shape(served.names[0], reply), headers=headers)

    async def _fit(self, served: Served, draft: Draft) -> Draft:
        """Return the request as the model's template understands it, which is asked once for each engine."""
        if not draft.depends_on_template:
            return draft
        if served.address not in self._templates:
            self._templates[served.address] = await self._run(served, read_template(served.target))
        return fitted(served.target, draft, self._templates[served.address])

    async def _count_reasoning(self, served: Served, reply: Reply[None]) -> Reply[None]:
        if reply.reasoning is None or reply.usage.reasoning_tokens:
            return reply
        return reply.with_reasoning_tokens(await self._run(served, count_text(served.target, reply.reasoning)))

    async def _run(self, served: Served, exchange: Exchange[T]) -> T:
        """Send what an exchange asks of an engine, until it has its result."""
        try:
            post = next(exchange)
            while True:
                async with await self._open(served, post) as answer:
                    pieces = _pieces(answer, served.target.engine)
                    body = b"".join([piece async for piece in pieces])
                post = exchange.send((answer.status, body))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _open(self, served: Served, post: Post) -> aiohttp.ClientResponse:
        client, url = self._clients[served.address], served.address.url + post.path
        method = "GET" if post.body is None else "POST"
        try:
            return await client.request(method, url, data=post.body, headers=HEADERS)
        except (OSError, aiohttp.ClientError) as error:
            raise connection_error(served.target.engine, error) from error

    async def _is_healthy(self, served: Served) -> bool:
        client, url = self._clients[served.address], served.address.url + "/health"
        try:
            async with client.get(url, timeout=aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)) as answer:
                return answer.status == 200
        except (OSError, TimeoutError, aiohttp.ClientError):
            return False

    def _find(self, name: object) -> Served:
        """Return the engine for `name`; where there is one engine only, no name means that one."""
        if name is None and len(self._served) == 1:
            return self._served[0]
        found = self._by_name.get(str(name).casefold())
        if found is None:
            known = ", ".join(f"`{one.names[0]}`" for one in self._served)
            raise UnknownModelError(
                f"There is no model `{name}` here; served: {known}",
                name=str(name),
                suggestions=[one.names[0] for one in self._served],
            )
        return found

    def _describe(self, served: Served) -> dict[str, Any]:
        return {
            "id": served.names[0],
            "object": "model",
            "created": self._created,
            "owned_by": served.target.engine,
            "aliases": list(served.names[1:]),
            "context_length": served.target.context_length,
            "abilities": sorted(served.target.abilities),
            "features": sorted(served.target.features - {"infill"}),  # there is no route for it
        }


@web.middleware
async def _shape_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except LaunchError as error:
        return error_response(error)
    except web.HTTPException as error:
        return http_error_response(error, f"{request.method} {request.path}")


async def _read_json(request: web.Request) -> dict[str, Any]:
    try:
        data = json.loads(await request.read())
    except ValueError as error:
        raise InvalidRequestError(f"The body is not JSON: {error}", parameter="body") from error
    if not isinstance(data, dict):
        raise InvalidRequestError("The body must be a JSON object", parameter="body")
    return data


async def _pieces(upstream: aiohttp.ClientResponse, engine: str) -> AsyncIterator[bytes]:
    """Yield the engine's answer as it comes; what breaks it is GenerationError."""
    try:
        async for piece in upstream.content.iter_any():
            yield piece
    except (OSError, aiohttp.ClientError) as error:
        raise connection_error(engine, error) from error


async def _pass_on(
    request: web.Request, pieces: AsyncIterator[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send the engine's events on untouched; an engine that breaks ends the stream with an error event."""
    response = web.StreamResponse(headers={**STREAM_HEADERS, **headers})
    await response.prepare(request)
    try:
        async for piece in pieces:
            await response.write(piece)
    except GenerationError as error:
        await response.write(error_event(error))
    await response.write_eof()
    return response

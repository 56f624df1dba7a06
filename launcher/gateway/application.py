"""The routes of the endpoint: from a client's request to the engine's stream, and back as it comes or folded."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from engines.base import COUNT_TOKENS, MESSAGES, RESPONSES
from engines.exchanges import embed, prompt_tokens, text_tokens
from engines.generation import Post
from engines.streaming import StreamReader, refusal_of
from launcher.access_log import AccessLog
from launcher.control import ModelStatus
from launcher.exposure import ON_LOOPBACK, Exposure
from launcher.gateway.admission import KEY_NAME, admission, expect_later
from launcher.gateway.answers import call_events, chat_completion, embeddings, noting_headers, text_completion
from launcher.gateway.metrics import CONTENT_TYPE, Metrics
from launcher.gateway.page import docs_page
from launcher.gateway.parameters import PATHS
from launcher.gateway.records import CLIENT_LEFT, RECORD, Record, new_record
from launcher.gateway.refusals import error_event, error_response, http_error_response, messages_error_event
from launcher.gateway.requests import Call, read_chat, read_completion, read_embeddings
from launcher.gateway.streams import EventStream, PassedStream
from launcher.gateway.upstream import Served, Upstream
from registry.errors import GenerationError, InvalidRequestError, LaunchError, NotServedError, UnknownModelError

LOGGER = logging.getLogger(__name__)
EVENT_STREAM = "text/event-stream"
# nginx would gather a stream into large pieces without the second one.
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_application(
    served: Sequence[Served], exposure: Exposure = ON_LOOPBACK, *, access_log: AccessLog | None = None
) -> web.Application:
    """Return the endpoint for these engines; the first that has a name gets the requests for it."""
    return Gateway(served, exposure, access_log).application()


class Gateway:
    """The routes, and what is in front of each engine."""

    def __init__(self, served: Sequence[Served], exposure: Exposure, access_log: AccessLog | None = None) -> None:
        self._exposure = exposure
        self._upstreams = tuple(Upstream(one) for one in served)
        self._by_name = {name.casefold(): one for one in reversed(self._upstreams) for name in one.served.names}
        self._access_log = access_log
        self._metrics = Metrics()
        self._created = int(time.time())

    def application(self) -> web.Application:
        application = web.Application(
            middlewares=[self._observe, _shape_errors, admission(self._exposure)],
            client_max_size=self._exposure.limits.body_bytes,
        )
        application.cleanup_ctx.append(self._open_upstreams)
        application.on_response_prepare.append(_name_request)
        application.router.add_get("/health", self.health)
        application.router.add_get("/ready", self.ready)
        application.router.add_get("/version", self.version)
        application.router.add_get("/metrics", self.metrics)
        application.router.add_get("/docs", self.docs)
        application.router.add_get("/v1/models", self.models)
        application.router.add_get("/v1/models/{name:.+}", self.model)
        posts = {
            PATHS["chat"]: self.chat,
            PATHS["completions"]: self.complete,
            PATHS["embeddings"]: self.embed,
            "/tokenize": self.tokenize,
            **dict.fromkeys((RESPONSES, MESSAGES, COUNT_TOKENS), self.hand_on),
        }
        for path, handler in posts.items():
            application.router.add_post(path, handler, expect_handler=expect_later)
        return application

    def statuses(self) -> Sequence[ModelStatus]:
        return [
            one.served.status._replace(running=one.running, waiting=one.waiting)
            for one in self._upstreams
            if one.served.status is not None
        ]

    async def reload(self) -> Sequence[str]:
        raise LaunchError("This endpoint was not started from a file", hint="launch serve -c launch.yaml")

    async def unload(self, name: str) -> bool:
        model = self._find(name).name
        raise LaunchError(f"`{model}` is all that this endpoint serves", hint=f"launch stop {model}")

    async def _open_upstreams(self, application: web.Application) -> AsyncIterator[None]:
        for upstream in self._upstreams:
            upstream.open()
        yield
        for upstream in self._upstreams:
            await upstream.close()

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note what becomes of a request, also where its client leaves."""
        record = request[RECORD] = new_record(request)
        try:
            response = await handler(request)
            record.status = response.status
            return response
        except (asyncio.CancelledError, ConnectionError):
            record.status, record.error = CLIENT_LEFT, "client_left"
            raise
        finally:
            record.total_s, record.key = record.age_s(), request.get(KEY_NAME)
            self._metrics.count(record)
            if self._access_log is not None:
                self._access_log.write(record.line())

    # --- about the endpoint ------------------------------------------------------------------------------------------

    async def health(self, request: web.Request) -> web.Response:
        """Answer 200 if all engines say that they are well."""
        for name, is_up in (await self._which_are_up()).items():
            if not is_up:
                raise GenerationError(f"`{self._by_name[name.casefold()].engine}` does not answer for `{name}`")
        return web.json_response({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """Answer 200 if all engines answer, else 503, and say which do."""
        models = await self._which_are_up()
        is_ready = all(models.values())
        status = "ready" if is_ready else "not ready"
        return web.json_response({"status": status, "models": models}, status=200 if is_ready else 503)

    async def version(self, request: web.Request) -> web.Response:
        """Answer our version, and of each model its engine's."""
        from importlib.metadata import version

        engines = {one.name: {"engine": one.engine, "version": one.served.version} for one in self._upstreams}
        return web.json_response({"version": version("model-launcher"), "models": engines})

    async def metrics(self, request: web.Request) -> web.Response:
        states = await asyncio.gather(*(upstream.state() for upstream in self._upstreams))
        text = await asyncio.to_thread(self._metrics.render, states)  # streams go on meanwhile
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def docs(self, request: web.Request) -> web.Response:
        page = docs_page(f"{request.scheme}://{request.host}", [upstream.served for upstream in self._upstreams])
        return web.Response(text=page, content_type="text/html", headers=PAGE_HEADERS)

    async def _which_are_up(self) -> dict[str, bool]:
        found = await asyncio.gather(*(upstream.is_healthy() for upstream in self._upstreams))
        return {upstream.name: is_up for upstream, is_up in zip(self._upstreams, found, strict=True)}

    # --- models ------------------------------------------------------------------------------------------------------

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._describe(one.served) for one in self._upstreams]})

    async def model(self, request: web.Request) -> web.Response:
        return web.json_response(self._describe(self._find(request.match_info["name"]).served))

    def _describe(self, served: Served) -> dict[str, Any]:
        return {
            "id": served.names[0],
            "object": "model",
            "created": self._created,
            "owned_by": served.target.engine,
            "aliases": list(served.names[1:]),
            "context_length": served.target.context_length,
            "concurrency": served.slots,
            "abilities": sorted(served.target.abilities),
            "features": sorted(served.target.features - {"infill"}),  # there is no route for it
        }

    def _find(self, name: object) -> Upstream:
        """Return the engine for `name`; where there is one engine only, no name means that one."""
        if name is None and len(self._upstreams) == 1:
            return self._upstreams[0]
        found = self._by_name.get(str(name).casefold())
        if found is None:
            known = [one.name for one in self._upstreams]
            raise UnknownModelError(
                f"There is no model `{name}` here; served: {', '.join(f'`{each}`' for each in known)}",
                name=str(name),
                suggestions=known,
            )
        return found

    def _find_for(self, request: web.Request, data: Mapping[str, Any]) -> Upstream:
        upstream = self._find(data.get("model"))
        request[RECORD].model = upstream.name
        return upstream

    # --- answers -----------------------------------------------------------------------------------------------------

    async def chat(self, request: web.Request) -> web.StreamResponse:
        data = await _read_json(request)
        upstream = self._find_for(request, data)
        return await _answer(request, upstream, read_chat(upstream.served.target, data), chat_completion)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        data = await _read_json(request)
        upstream = self._find_for(request, data)
        return await _answer(request, upstream, read_completion(upstream.served.target, data), text_completion)

    async def embed(self, request: web.Request) -> web.Response:
        data = await _read_json(request)
        upstream, record = self._find_for(request, data), request[RECORD]
        wanted = read_embeddings(data)
        async with upstream.turn(record):
            found = await upstream.run(embed(upstream.served.target, wanted.texts))
        record.prompt_tokens = found.prompt_tokens
        body = embeddings(upstream.name, found, in_base64=wanted.in_base64)
        return web.json_response(body, headers=noting_headers(wanted.ignored, ()))

    async def tokenize(self, request: web.Request) -> web.Response:
        """Answer with the tokens of messages, the template included, or of a text, in the shape of vLLM's server."""
        data = await _read_json(request)
        upstream = self._find_for(request, data)
        target = upstream.served.target
        if "messages" in data:
            tokens = await upstream.run(prompt_tokens(target, data["messages"], upstream.template))
        else:
            tokens = await upstream.run(text_tokens(target, data.get("prompt")))
        return web.json_response({"count": len(tokens), "max_model_len": target.context_length, "tokens": tokens})

    async def hand_on(self, request: web.Request) -> web.StreamResponse:
        """Answer as the engine's own server does, where it has the route."""
        data = await _read_json(request)
        upstream, record = self._find_for(request, data), request[RECORD]
        _refuse_without(upstream, request.path)
        record.is_stream = data.get("stream") is True
        post = Post(request.path, json.dumps({**data, "model": upstream.served.target.name}).encode())
        async with upstream.turn(record), await upstream.send(post) as answer:
            if answer.status != 200:
                raise refusal_of(upstream.engine, answer.status, await upstream.read(answer))
            breaks = messages_error_event if request.path == MESSAGES else error_event
            return await _pass_on(
                request, PassedStream(record), upstream.pieces(answer), {}, breaks, answer.content_type
            )


class _Passing(Protocol):
    def feed(self, piece: bytes) -> bytes: ...
    def rest(self) -> bytes: ...


async def _answer(
    request: web.Request, upstream: Upstream, call: Call, shape: Callable[..., dict[str, Any]]
) -> web.StreamResponse:
    record = request[RECORD]
    record.is_stream = call.is_stream
    draft = await upstream.fit(call.draft)
    headers = noting_headers(call.ignored, draft.notes)
    async with upstream.turn(record):
        reader = StreamReader(upstream.engine, alternatives=draft.logprobs, is_call=draft.is_call)
        sent_s = record.age_s()
        async with await upstream.send(draft.post()) as answer:
            if answer.status != 200:
                raise refusal_of(upstream.engine, answer.status, await upstream.read(answer))
            events = EventStream(record, hides_usage=not call.wants_usage)
            if call.is_stream and not draft.is_call:
                return await _pass_on(request, events, upstream.pieces(answer), headers, error_event, EVENT_STREAM)
            async for piece in upstream.pieces(answer):
                reader.feed(piece)
        reply = await upstream.count_reasoning(reader.reply())
    record.first_token_s = sent_s + reply.timings.first_token_s
    record.prompt_tokens, record.completion_tokens = reply.usage.prompt_tokens, reply.usage.completion_tokens
    record.finish_reason = reply.finish_reason
    if call.is_stream:
        made = call_events(upstream.name, reply, wants_usage=call.wants_usage)
        return await _pass_on(request, events, made, headers, error_event, EVENT_STREAM)
    return web.json_response(shape(upstream.name, reply), headers=headers)


async def _pass_on(
    request: web.Request,
    passing: _Passing,
    pieces: AsyncIterator[bytes],
    headers: Mapping[str, str],
    event_of: Callable[[LaunchError, str], bytes],
    content_type: str,
) -> web.StreamResponse:
    """Send the engine's answer on as it comes; an engine that breaks ends a stream with an error event."""
    record = request[RECORD]
    response = web.StreamResponse(headers={"Content-Type": content_type, **STREAM_HEADERS, **headers})
    await response.prepare(request)
    record.is_answering = True
    try:
        async for piece in pieces:
            if ready := passing.feed(piece):
                await response.write(ready)
        if rest := passing.rest():
            await response.write(rest)
    except GenerationError as error:
        record.error = error.kind
        await response.write(event_of(error, record.id))
    await response.write_eof()
    return response


@web.middleware
async def _shape_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    record = request[RECORD]
    try:
        return await handler(request)
    except LaunchError as error:
        record.error = error.kind
        return error_response(error, request.path, record.id)
    except web.HTTPException as error:
        record.error = f"http_{error.status}"
        return http_error_response(error, request.method, request.path, record.id)
    except Exception as error:
        if record.is_answering or isinstance(error, ConnectionError):
            raise
        LOGGER.exception("request %s", record.id)
        record.error = LaunchError.kind
        broken = LaunchError(f"The endpoint broke over this request: {error!r}", hint="its log has more")
        return error_response(broken, request.path, record.id)


async def _name_request(request: web.Request, response: web.StreamResponse) -> None:
    record: Record | None = request.get(RECORD)
    if record is not None:  # aiohttp answers what is not HTTP without asking us
        response.headers["X-Request-Id"] = record.id


async def _read_json(request: web.Request) -> dict[str, Any]:
    try:
        data = json.loads(await request.read())
    except ValueError as error:
        raise InvalidRequestError(f"The body is not JSON: {error}", parameter="body") from error
    if not isinstance(data, dict):
        raise InvalidRequestError("The body must be a JSON object", parameter="body")
    return data


def _refuse_without(upstream: Upstream, route: str) -> None:
    if route not in upstream.served.target.wire.routes:
        from engines.index import CAPABILITIES, engine_named

        able = [each.engine for each in CAPABILITIES if route in engine_named(each.engine).wire.routes]
        message = f"`{upstream.engine}` has no `{route}` of its own"
        raise NotServedError(message, route=route, engine=upstream.engine, engines=able)

"""The routes of the endpoint: from a client's request to the engine's stream, and back as it comes or folded."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from engines.base import COUNT_TOKENS, MESSAGES, RESPONSES
from engines.exchanges import embed, prompt_tokens, text_tokens
from engines.generation import Post, Target
from engines.streaming import StreamReader, refusal_of
from launcher.access_log import AccessLog
from launcher.exposure import ON_LOOPBACK, Exposure
from launcher.gateway.admission import KEY_NAME, admission, expect_later
from launcher.gateway.answers import call_events, chat_completion, embeddings, noting_headers, text_completion
from launcher.gateway.engine_answer import EngineAnswer
from launcher.gateway.metrics import CONTENT_TYPE, EngineState, Metrics
from launcher.gateway.offers import Offer, Offers, in_silence
from launcher.gateway.outgoing import OutgoingStream
from launcher.gateway.page import docs_page
from launcher.gateway.parameters import PATHS
from launcher.gateway.records import CLIENT_LEFT, RECORD, Record, new_record
from launcher.gateway.refusals import error_event, error_response, http_error_response, messages_error_event
from launcher.gateway.requests import Call, read_chat, read_completion, read_embeddings
from launcher.gateway.streams import EventStream, PassedStream
from launcher.gateway.upstream import Upstream
from registry.errors import InvalidRequestError, LaunchError, NotServedError

LOGGER = logging.getLogger(__name__)
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Read = Callable[[Target, Mapping[str, Any]], Call]
Shape = Callable[..., dict[str, Any]]


def make_application(
    offers: Offers,
    exposure: Exposure = ON_LOOPBACK,
    *,
    access_log: AccessLog | None = None,
    metrics: Metrics | None = None,
) -> web.Application:
    """Return the endpoint for what is offered; `metrics` are where its requests are counted, new ones by default."""
    return Gateway(offers, exposure, access_log, metrics or Metrics()).application()


class Gateway:
    """The routes, in front of what is offered."""

    def __init__(self, offers: Offers, exposure: Exposure, access_log: AccessLog | None, metrics: Metrics) -> None:
        self._offers = offers
        self._exposure = exposure
        self._access_log = access_log
        self._metrics = metrics
        self._created = int(time.time())

    def application(self) -> web.Application:
        application = web.Application(
            middlewares=[self._observe, _shape_errors, admission(self._exposure)],
            client_max_size=self._exposure.limits.body_bytes,
        )
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

    @web.middleware
    async def _observe(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Note what becomes of a request, also where its client leaves."""
        record = request[RECORD] = new_record(request)
        try:
            response = await handler(request)
            record.status = response.status
            return response
        except (asyncio.CancelledError, ConnectionError):
            if record.is_whole:  # OpenAI's client leaves at the last event
                record.status = 200
            else:
                record.status, record.error = CLIENT_LEFT, "client_left"
            raise
        finally:
            record.total_s, record.key = record.age_s(), request.get(KEY_NAME)
            self._metrics.count(record)
            if self._access_log is not None:
                self._access_log.write(record.line())

    # --- about the endpoint ------------------------------------------------------------------------------------------

    async def health(self, request: web.Request) -> web.Response:
        """Answer 200: the endpoint is there, whatever its models are."""
        return web.json_response({"status": "ok"})

    async def ready(self, request: web.Request) -> web.Response:
        """Answer 503 while an engine that is to be there loads, has failed or does not answer, else 200.

        One that has left can be had again. The body has each model's state.
        """
        states = await asyncio.gather(*map(_state_of, self._offers))
        required = [state for each, state in zip(self._offers, states, strict=True) if each.is_required]
        is_ready = not set(required) - {"ready", "unloading", "unloaded"}
        body = {
            "status": "ready" if is_ready else "not ready",
            "models": {each.name: state for each, state in zip(self._offers, states, strict=True)},
        }
        return web.json_response(body, status=200 if is_ready else 503)

    async def version(self, request: web.Request) -> web.Response:
        """Answer our version, and of each model its engine's."""
        from importlib.metadata import version

        engines = {each.name: {"engine": each.target.engine, "version": each.version} for each in self._offers}
        return web.json_response({"version": version("model-launcher"), "models": engines})

    async def metrics(self, request: web.Request) -> web.Response:
        engines = await asyncio.gather(*map(_engine_state, self._offers))
        text = await asyncio.to_thread(self._metrics.render, engines)  # streams go on meanwhile
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE})

    async def docs(self, request: web.Request) -> web.Response:
        page = docs_page(f"{request.scheme}://{request.host}", list(self._offers))
        return web.Response(text=page, content_type="text/html", headers=PAGE_HEADERS)

    # --- models ------------------------------------------------------------------------------------------------------

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [self._describe(each) for each in self._offers]})

    async def model(self, request: web.Request) -> web.Response:
        return web.json_response(self._describe(self._offers.find(request.match_info["name"])))

    def _describe(self, offer: Offer) -> dict[str, Any]:
        return {
            "id": offer.name,
            "object": "model",
            "created": self._created,
            "owned_by": offer.target.engine,
            "aliases": list(offer.names[1:]),
            "context_length": offer.target.context_length,
            "concurrency": offer.slots,
            "abilities": sorted(offer.target.abilities),
            "features": sorted(offer.target.features - {"infill"}),  # there is no route for it
            "state": offer.state,
        }

    def _find_for(self, request: web.Request, data: Mapping[str, Any]) -> Offer:
        offer = self._offers.find(data.get("model"))
        request[RECORD].model = offer.name
        return offer

    # --- answers -----------------------------------------------------------------------------------------------------

    async def chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_chat, chat_completion)

    async def complete(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, read_completion, text_completion)

    async def _answer(self, request: web.Request, read: Read, shape: Shape) -> web.StreamResponse:
        data = await _read_json(request)
        offer, record = self._find_for(request, data), request[RECORD]
        planned = offer.target
        call = read(planned, data)  # what is wrong with it is said before anything is loaded for it
        record.is_stream = call.is_stream
        stream = OutgoingStream(request)
        try:
            async with offer.turn(record, stream.comment if call.is_stream else in_silence) as upstream:
                call = call if upstream.target is planned else read(upstream.target, data)
                return await _ask(upstream, call, shape, stream, record)
        except LaunchError as error:
            return await stream.fail(error)

    async def embed(self, request: web.Request) -> web.Response:
        data = await _read_json(request)
        offer, record = self._find_for(request, data), request[RECORD]
        wanted = read_embeddings(data)
        async with offer.turn(record) as upstream:
            found = await upstream.run(embed(upstream.target, wanted.texts))
        record.prompt_tokens = found.prompt_tokens
        body = embeddings(offer.name, found, in_base64=wanted.in_base64)
        return web.json_response(body, headers=noting_headers(wanted.ignored, ()))

    async def tokenize(self, request: web.Request) -> web.Response:
        """Answer with the tokens of messages, the template included, or of a text, in the shape of vLLM's server."""
        data = await _read_json(request)
        async with self._find_for(request, data).use() as upstream:
            target = upstream.target
            if "messages" in data:
                tokens = await upstream.run(prompt_tokens(target, data["messages"], upstream.template))
            else:
                tokens = await upstream.run(text_tokens(target, data.get("prompt")))
        return web.json_response({"count": len(tokens), "max_model_len": target.context_length, "tokens": tokens})

    async def hand_on(self, request: web.Request) -> web.StreamResponse:
        """Answer as the engine's own server does, where it has the route."""
        data = await _read_json(request)
        offer, record = self._find_for(request, data), request[RECORD]
        _refuse_without(offer.target, request.path)
        record.is_stream = data.get("stream") is True
        stream = OutgoingStream(request, messages_error_event if request.path == MESSAGES else error_event)
        try:
            async with offer.turn(record, stream.comment if record.is_stream else in_silence) as upstream:
                _refuse_without(upstream.target, request.path)
                post = Post(request.path, json.dumps({**data, "model": upstream.target.name}).encode())
                with await upstream.send(post) as answer:
                    await _refuse(upstream.engine, answer)
                    passed = PassedStream(record)
                    return await stream.pass_on(passed, answer, {}, answer.content_type)
        except LaunchError as error:
            return await stream.fail(error)


async def _ask(
    upstream: Upstream, call: Call, shape: Shape, stream: OutgoingStream, record: Record
) -> web.StreamResponse:
    """Return the engine's answer, passed on as it comes or folded."""
    draft = await upstream.fit(call.draft)
    headers = noting_headers(call.ignored, draft.notes)
    events = EventStream(record, hides_usage=not call.wants_usage)
    reader = StreamReader(upstream.engine, alternatives=draft.logprobs, is_call=draft.is_call)
    sent_s = record.age_s()
    with await upstream.send(draft.post()) as answer:
        await _refuse(upstream.engine, answer)
        if call.is_stream and not draft.is_call:
            return await stream.pass_on(events, answer, headers)
        async for piece in answer.pieces():
            reader.feed(piece)
    reply = await upstream.count_reasoning(reader.reply())
    record.first_token_s = sent_s + reply.timings.first_token_s
    record.prompt_tokens, record.completion_tokens = reply.usage.prompt_tokens, reply.usage.completion_tokens
    record.finish_reason = reply.finish_reason
    if call.is_stream:
        return await stream.send(call_events(upstream.name, reply, wants_usage=call.wants_usage), headers)
    return web.json_response(shape(upstream.name, reply), headers=headers)


async def _refuse(engine: str, answer: EngineAnswer) -> None:
    """Raise what the engine says instead of an answer."""
    if answer.status != 200:
        raise refusal_of(engine, answer.status, await answer.read())


async def _state_of(offer: Offer) -> str:
    """Return an offer's state, as far as its engine says that it is well."""
    upstream = offer.upstream
    return offer.state if upstream is None or await upstream.is_healthy() else "not answering"


async def _engine_state(offer: Offer) -> EngineState:
    """Return what the metrics say of an offer at this moment."""
    upstream = offer.upstream
    said = None if upstream is None else await upstream.metrics()
    pid = None if upstream is None else upstream.served.pid
    return EngineState(offer.name, said is not None, offer.running, offer.waiting, pid, said or "")


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


def _refuse_without(target: Target, route: str) -> None:
    if route not in target.wire.routes:
        from engines.index import CAPABILITIES, engine_named

        able = [each.engine for each in CAPABILITIES if route in engine_named(each.engine).wire.routes]
        message = f"`{target.engine}` has no `{route}` of its own"
        raise NotServedError(message, route=route, engine=target.engine, engines=able)

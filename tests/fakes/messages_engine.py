"""An engine whose own server has `/v1/responses` and `/v1/messages`, with the shapes that llama.cpp's gives them.

It says the last user message's text, word by word, and its metrics count the requests. Its vectors nobody can read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from engines.base import ROUTES, Address, Wire
from engines.generation import Target

NAME = "word-model"


class MessagesEngine:
    """The routes; `asked` are the bodies that came."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/health", self.health)
        application.router.add_get("/metrics", self.metrics)
        application.router.add_post("/v1/messages", self.messages)
        application.router.add_post("/v1/messages/count_tokens", self.count)
        application.router.add_post("/v1/responses", self.responses)
        application.router.add_post("/v1/embeddings", self.embeddings)
        return application

    async def health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def metrics(self, request: web.Request) -> web.Response:
        lines = "# HELP words:asked_total Requests.\n# TYPE words:asked_total counter\n"
        return web.Response(text=f"{lines}words:asked_total {len(self.asked)}\n")

    async def messages(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request)
        if not body.get("messages"):
            error = {"code": 400, "message": "'messages' is required", "type": "invalid_request_error"}
            return web.json_response({"error": error}, status=400)
        words = body["messages"][-1]["content"].split()
        head = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
        if not body.get("stream"):
            usage = {"input_tokens": 1 + len(words), "output_tokens": len(words)}
            said = [{"type": "text", "text": " ".join(words)}]
            return web.json_response({**head, "content": said, "stop_reason": "end_turn", "usage": usage})
        start = {**head, "content": [], "stop_reason": None, "usage": {"input_tokens": 3, "output_tokens": 0}}
        deltas = [{"index": 0, "delta": {"type": "text_delta", "text": word}} for word in words]
        return await _stream(
            request,
            ("message_start", {"message": start}),
            ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
            *(("content_block_delta", delta) for delta in deltas),
            ("content_block_stop", {"index": 0}),
            ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": len(words)}}),
            ("message_stop", {}),
        )

    async def count(self, request: web.Request) -> web.Response:
        body = await self._read(request)
        return web.json_response({"input_tokens": len(body["messages"][-1]["content"].split())})

    async def responses(self, request: web.Request) -> web.StreamResponse:
        body = await self._read(request)
        words = body["input"].split()
        usage = {"input_tokens": 2, "output_tokens": len(words), "total_tokens": 2 + len(words)}
        deltas = [("response.output_text.delta", {"delta": word}) for word in words]
        done = {"response": {"id": "resp_1", "model": body["model"], "status": "completed", "usage": usage}}
        return await _stream(request, *deltas, ("response.completed", done))

    async def embeddings(self, request: web.Request) -> web.Response:
        return web.json_response({"vectors": "nobody's shape"})

    async def _read(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.asked.append(body)
        return body


async def _stream(request: web.Request, *events: tuple[str, Mapping[str, Any]]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for kind, said in events:
        await response.write(f"event: {kind}\ndata: {json.dumps({'type': kind, **said})}\n\n".encode())
    return response


@contextlib.contextmanager
def running_messages_engine() -> Iterator[tuple[MessagesEngine, Address, Target]]:
    """Serve one on a Unix socket in a thread of this process."""
    engine, loop, stopping = MessagesEngine(), asyncio.new_event_loop(), asyncio.Event()
    with tempfile.TemporaryDirectory(prefix="words-", dir="/tmp") as folder:
        socket, listening = Path(folder) / "w.sock", threading.Event()

        async def serve() -> None:
            runner = web.AppRunner(engine.application(), access_log=None)
            await runner.setup()
            await web.UnixSite(runner, str(socket)).start()
            listening.set()
            await stopping.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        listening.wait()
        try:
            abilities = frozenset({"chat", "embed"})
            target = Target(
                NAME, "words", Wire(routes=ROUTES), 512, features=frozenset({"embeddings"}), abilities=abilities
            )
            yield engine, Address("http://localhost", socket), target
        finally:
            loop.call_soon_threadsafe(stopping.set)
            thread.join()
            loop.close()

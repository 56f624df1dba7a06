"""An engine without a model, in the shape of llama.cpp's server: it answers with the last user message's words.

Standard library only. One token is one word with the white space before it, and the beginning of the text is one more.
It serves on a Unix socket or on a host and port, keeps the context, the limits and the stop strings as engines do,
queues what its slots cannot take, and frees the slot of a client that leaves. Where a JSON schema asks for it, it says
the least that satisfies it; of tools it calls, where it must, the first; and it thinks what it was told to think.
What it is told to reply, a text or calls of tools, goes before all of that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

Json = dict[str, Any]


class Refusal(Exception):
    """An answer other than 200, in OpenAI's shape with llama.cpp's facts."""

    def __init__(self, status: int, kind: str, message: str, **facts: int) -> None:
        super().__init__(message)
        self.status = status
        self.body: Json = {"error": {"code": status, "message": message, "type": kind, **facts}}


@dataclass(frozen=True)
class Piece:
    """What is sent at once; the last one has a `finish_reason`. `tokens` counts those made so far."""

    text: str
    tokens: int
    finish_reason: str | None = None
    reasoning: str = ""
    call: Json | None = None


# --- the model -------------------------------------------------------------------------------------------------------


def tokens_of(text: str) -> list[str]:
    """Return the words of `text`, each with the white space before it; joined they are `text` again."""
    return re.findall(r"\s*\S+|\s+$", text)


def prompt_of(messages: list[Json]) -> str:
    """Return the conversation as the text that the model reads."""
    turns = "".join(f"<|{message['role']}|> {message['content'] or ''} <|end|> " for message in messages)
    return turns + "<|assistant|>"


def words_to_say(body: Json) -> list[str]:
    if "response_format" in body:
        return tokens_of(json.dumps(least_of(body["response_format"]["json_schema"]["schema"]), ensure_ascii=False))
    return tokens_of(asked_in(body))


def asked_in(body: Json) -> str:
    """Return the prompt, or the last thing that the user said."""
    if "messages" not in body:
        return str(body["prompt"])
    said = [message["content"] for message in body["messages"] if message["role"] == "user"]
    return said[-1] if said else ""


class Replies:
    """What is said whatever the model would say: in turn, or by what is asked.

    A reply is a text, or a list of calls of tools, each with its name and its arguments.
    """

    def __init__(self, replies: list[Any] | Json) -> None:
        self.replies = replies
        self.given = 0

    def next(self, body: Json) -> Any:
        """Return the reply to a request; raises Refusal where there is none."""
        if isinstance(self.replies, dict):
            asked = asked_in(body)
            if asked not in self.replies:
                raise Refusal(500, "server_error", f"there is no reply to `{asked}`")
            return self.replies[asked]
        if self.given == len(self.replies):
            raise Refusal(500, "server_error", f"all {self.given} replies have been given")
        self.given += 1
        return self.replies[self.given - 1]


def least_of(schema: Json, root: Json | None = None) -> Any:
    """Return the least that satisfies a JSON schema, of those that describe plain records."""
    root = schema if root is None else root
    if "$ref" in schema:
        return least_of(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if schema.get("type") == "object":
        known = schema.get("properties", {})
        return {name: least_of(known[name], root) for name in schema.get("required", ()) if name in known}
    least: Json = {"string": "echo", "integer": 1, "number": 1.0, "boolean": True, "array": []}
    return least.get(schema.get("type", ""))


def calls_of(body: Json) -> list[Json]:
    """Return the call that a request insists on, of its first tool."""
    if body.get("tool_choice") != "required":
        return []
    function = body["tools"][0]["function"]
    return [{"name": function["name"], "arguments": least_of(function.get("parameters", {"type": "object"}))}]


def described(index: int, call: Json) -> Json:
    """Return a call in OpenAI's shape."""
    named = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
    return {"index": index, "id": call.get("id") or f"call-{index + 1}", "type": "function", "function": named}


def thoughts_of(body: Json, thinks: str | None) -> list[str]:
    """Return what is thought before the answer: nothing where the template was told so, at most the budget."""
    if (
        thinks is None
        or "messages" not in body
        or not (body.get("chat_template_kwargs") or {}).get("enable_thinking", True)
    ):
        return []
    return tokens_of(thinks)[: body.get("reasoning_budget")]


def pieces_of(words: list[str], limit: int, stops: list[str]) -> Iterator[Piece]:
    """Yield the answer word by word, without the stop strings, holding back what may become one."""
    text, sent = "", 0
    for count, word in enumerate(words[:limit], start=1):
        text += word
        end = min((at for stop in stops if (at := text.find(stop)) >= 0), default=None)
        if end is not None:
            yield Piece(text[sent:end], count, "stop")
            return
        safe = len(text) - held_back(text, stops)
        yield Piece(text[sent:safe], count)
        sent = safe
    yield Piece(text[sent:], min(limit, len(words)), "length" if limit <= len(words) else "stop")


def held_back(text: str, stops: list[str]) -> int:
    """Return how many characters at the end of `text` may be the beginning of a stop string."""
    lengths = (length for stop in stops for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length]))
    return max(lengths, default=0)


# --- the server ------------------------------------------------------------------------------------------------------


class EchoServer:
    """The routes; `slots` requests are answered at once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.slots = asyncio.Semaphore(options.parallel)
        self.replies = None if options.replies is None else Replies(options.replies)

    async def serve(self) -> None:
        """Listen until the process is ended."""
        if self.options.socket is not None:
            server = await asyncio.start_unix_server(self.connected, self.options.socket)
        else:
            server = await asyncio.start_server(self.connected, self.options.host, self.options.port)
        print(f"echo: {self.options.alias} is ready", file=sys.stderr, flush=True)
        async with server:
            await server.serve_forever()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request; a client that leaves before the end stops the answer."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            path, body = await read_request(reader)
            answer = asyncio.ensure_future(self.answer(path, body, writer))
            left = asyncio.ensure_future(reader.read(1))
            await asyncio.wait((answer, left), return_when=asyncio.FIRST_COMPLETED)
            left.cancel()
            answer.cancel()
            await answer
        writer.close()

    async def answer(self, path: str, body: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(body or b"{}")
            if path in ("/v1/chat/completions", "/v1/completions"):
                await self.generate(request, writer)
            elif path == "/infill":
                await self.infill(request, writer)
            else:
                await write_json(writer, 200, self.look_up(path, request))
        except Refusal as refusal:
            await write_json(writer, refusal.status, refusal.body)
        except (ValueError, KeyError, TypeError) as error:
            await write_json(writer, 400, Refusal(400, "invalid_request_error", repr(error)).body)

    def template_caps(self) -> Json:
        return {"supports_system_role": not self.options.no_system_role, "supports_tools": not self.options.no_tools}

    def look_up(self, path: str, request: Json) -> Json:
        if path == "/health":
            return {"status": "ok"}
        if path == "/v1/models":
            return {"object": "list", "data": [{"id": self.options.alias, "object": "model", "owned_by": "echo"}]}
        if path == "/apply-template":
            return {"prompt": prompt_of(request["messages"])}
        if path == "/props":
            return {"chat_template_caps": self.template_caps()}
        if path == "/v1/embeddings":
            return embeddings(request["input"])
        if path == "/tokenize":
            beginning = [1] if request.get("add_special") else []
            return {"tokens": beginning + [zlib.crc32(word.encode()) for word in tokens_of(request["content"])]}
        raise Refusal(404, "not_found_error", "File Not Found")

    async def generate(self, request: Json, writer: asyncio.StreamWriter) -> None:
        prompt = prompt_of(request["messages"]) if "messages" in request else request["prompt"]
        prompt_tokens = 1 + len(tokens_of(prompt))
        self.refuse_overflow(prompt_tokens)
        pieces = self.paced(request, self.options.ctx_size - prompt_tokens, self.reply_to(request))
        async with self.slots:
            if request.get("stream"):
                await self.stream(request, prompt_tokens, pieces, writer)
            else:
                await write_json(writer, 200, await self.fold(request, prompt_tokens, pieces))

    def refuse_overflow(self, prompt_tokens: int) -> None:
        context = self.options.ctx_size
        if prompt_tokens >= context:
            message = f"request ({prompt_tokens} tokens) exceeds the available context size ({context} tokens)"
            raise Refusal(400, "exceed_context_size_error", message, n_prompt_tokens=prompt_tokens, n_ctx=context)

    async def infill(self, request: Json, writer: asyncio.StreamWriter) -> None:
        """Answer with the words before and after, in the shape that llama.cpp has for this alone."""
        prompt = request["input_prefix"] + request["input_suffix"]
        asked = {**request, "prompt": prompt}
        pieces = self.paced(asked, self.options.ctx_size, self.reply_to(asked))
        write_head(writer, 200, "text/event-stream", "Transfer-Encoding: chunked")
        last = Piece("", 0)
        async for last in pieces:
            await write_event(writer, {"content": last.text, "stop": False})
        ends = {"stop": True, "stop_type": "limit" if last.finish_reason == "length" else "eos"}
        counts = {"tokens_evaluated": 1 + len(tokens_of(prompt)), "tokens_predicted": last.tokens}
        await write_event(writer, {"content": "", **ends, **counts})
        await write_chunk(writer, b"")

    def reply_to(self, request: Json) -> Any:
        """Return what it was told to reply, or None."""
        return self.options.reply if self.replies is None else self.replies.next(request)

    async def paced(self, request: Json, room: int, reply: Any) -> AsyncIterator[Piece]:
        if calls := calls_of(request) if reply is None else reply if isinstance(reply, list) else []:
            for index, call in enumerate(calls):
                yield Piece("", index + 1, call=described(index, call))
            yield Piece("", len(calls), "tool_calls")
            return
        asked = request.get("max_tokens")
        limit = room if asked is None else min(asked, room)
        thoughts = thoughts_of(request, self.options.thinks)[:limit]
        for count, word in enumerate(thoughts, start=1):
            yield Piece("", count, reasoning=word)
        words = words_to_say(request) if reply is None else tokens_of(reply)
        async for piece in self.said(request, words, limit - len(thoughts)):
            yield replace(piece, tokens=piece.tokens + len(thoughts))

    async def said(self, request: Json, words: list[str], limit: int) -> AsyncIterator[Piece]:
        stops = request.get("stop") or []
        stops = [stops] if isinstance(stops, str) else stops
        for piece in pieces_of(words, limit, stops):
            if self.options.tokens_per_second and piece.finish_reason is None:
                await asyncio.sleep(1 / self.options.tokens_per_second)
            yield piece

    async def stream(
        self, request: Json, prompt_tokens: int, pieces: AsyncIterator[Piece], writer: asyncio.StreamWriter
    ) -> None:
        write_head(writer, 200, "text/event-stream", "Transfer-Encoding: chunked")
        is_chat, made = "messages" in request, 0
        if is_chat:
            await write_event(writer, self.event(request, [chat_choice({"role": "assistant", "content": None}, None)]))
        async for piece in pieces:
            made = piece.tokens
            await write_event(writer, self.event(request, [stream_choice(request, piece)]))
        if (request.get("stream_options") or {}).get("include_usage"):
            await write_event(writer, self.event(request, [], **usage(prompt_tokens, made)))
        await write_chunk(writer, b"data: [DONE]\n\n")
        await write_chunk(writer, b"")

    async def fold(self, request: Json, prompt_tokens: int, pieces: AsyncIterator[Piece]) -> Json:
        text, last = "", Piece("", 0)
        async for last in pieces:
            text += last.text
        whole = {"message": {"role": "assistant", "content": text}} if "messages" in request else {"text": text}
        choice = {"index": 0, **whole, "finish_reason": last.finish_reason}
        return self.event(request, [choice], is_stream=False, **usage(prompt_tokens, last.tokens))

    def event(self, request: Json, choices: list[Json], is_stream: bool = True, **more: object) -> Json:
        kind = "text_completion" if "messages" not in request else "chat.completion" + ".chunk" * is_stream
        head = {"id": "echo", "object": kind, "created": int(time.time()), "model": self.options.alias}
        return {**head, "choices": choices, **more}


def stream_choice(request: Json, piece: Piece) -> Json:
    if "messages" not in request:
        choice = {"index": 0, "text": piece.text, "logprobs": None, "finish_reason": piece.finish_reason}
    else:
        delta = {"content": piece.text, "reasoning_content": piece.reasoning, "tool_calls": piece.call and [piece.call]}
        choice = chat_choice({key: value for key, value in delta.items() if value}, piece.finish_reason)
    said = piece.reasoning or piece.text
    return {**choice, **logprobs(said)} if request.get("logprobs") and said else choice


def logprobs(word: str) -> Json:
    """Return the word as the only one that could have been said."""
    certain = {"token": word, "bytes": list(word.encode()), "logprob": 0.0}
    return {"logprobs": {"content": [{**certain, "top_logprobs": [certain]}]}}


def embeddings(texts: list[str]) -> Json:
    """Return a vector for each text: the same for the same text."""
    vectors = [[byte / 255 for byte in zlib.crc32(text.encode()).to_bytes(4, "big")] for text in texts]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    count = sum(1 + len(tokens_of(text)) for text in texts)
    return {"object": "list", "data": data, "usage": {"prompt_tokens": count, "total_tokens": count}}


def chat_choice(delta: Json, finish_reason: str | None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    counts = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    return {"usage": {**counts, "total_tokens": prompt_tokens + completion_tokens}}


# --- HTTP ------------------------------------------------------------------------------------------------------------


async def read_request(reader: asyncio.StreamReader) -> tuple[str, bytes]:
    """Return the path and the body of one request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = re.search(r"(?im)^content-length: *(\d+)", head)
    body = await reader.readexactly(int(length.group(1))) if length else b""
    return head.split(" ", 2)[1].partition("?")[0], body


def write_head(writer: asyncio.StreamWriter, status: int, content_type: str, *headers: str) -> None:
    first = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    lines = (first, f"Content-Type: {content_type}", "Connection: close", *headers)
    writer.write("\r\n".join((*lines, "", "")).encode())


async def write_json(writer: asyncio.StreamWriter, status: int, answer: Json) -> None:
    body = json.dumps(answer).encode()
    write_head(writer, status, "application/json", f"Content-Length: {len(body)}")
    writer.write(body)
    await writer.drain()


async def write_event(writer: asyncio.StreamWriter, event: Json) -> None:
    await write_chunk(writer, b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")


async def write_chunk(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(b"%x\r\n%b\r\n" % (len(data), data))
    await writer.drain()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Serve an engine that repeats what it is told")
    parser.add_argument("--model", help="taken for the shape's sake, never read")
    parser.add_argument("--alias", default="echo")
    parser.add_argument("--socket")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--ctx-size", type=int, default=8192, help="tokens of each slot")
    parser.add_argument("--parallel", type=int, default=1, help="slots")
    parser.add_argument("--load-seconds", type=float, default=0, help="be ready after so long")
    parser.add_argument("--tokens-per-second", type=float, help="of each slot; without it as fast as it goes")
    parser.add_argument("--no-system-role", action="store_true", help="have a template that knows no system message")
    parser.add_argument("--no-tools", action="store_true", help="have a template that knows no tools")
    parser.add_argument("--thinks", help="think this before each answer")
    parser.add_argument("--reply", help="say this, whatever is asked")
    parser.add_argument("--replies", type=json.loads, help="JSON: a list to say in turn, or an object by what is asked")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    given = parse()
    time.sleep(given.load_seconds)
    asyncio.run(EchoServer(given).serve())

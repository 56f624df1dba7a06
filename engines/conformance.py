"""The tests that every engine passes: one generate interface, whatever serves it.

    class TestMyEngine(EngineConformance):
        engine = MyEngine()

        @pytest.fixture(scope="class")
        @classmethod
        def python(cls) -> str: ...            # the Python of the engine's environment

        @pytest.fixture(scope="class")
        @classmethod
        def checkpoint(cls) -> Checkpoint: ... # weights, and what is true of them

The engine is started twice for a class: with several slots and a small context, and with one slot and a large one.
Nothing is patched and nobody is asked but the session, so that what holds here holds for whoever uses it.
"""

from __future__ import annotations

import asyncio  # noqa: TID253 - only tests import this
import contextlib
import json
import math
import socket
import socketserver
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest

from engines.base import Address, Engine, Settings
from engines.generation import DEFAULTS, Result, Target
from engines.machine import read_machine
from engines.process import EngineProcess, new_address
from engines.session import AsyncSession, Session
from registry.errors import ContextOverflowError, InvalidRequestError
from registry.spec import Architecture, Chat

READY_WITHIN_S = 600.0
SLOTS = 4
SMALL_CONTEXT, LARGE_CONTEXT = 512, 2048
# Far longer than a few tokens take on the slowest engine, far shorter than filling the large context.
PROMPTLY_S = 30.0
WORDS = "one two three four five six seven eight nine ten " * 3
QUESTION = "Write a long story about a small boat on a wide river."
OUT_OF_RANGE: tuple[tuple[str, object], ...] = (
    ("max_tokens", 0),
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("top_p", 0),
    ("top_p", 1.1),
    ("top_k", -2),
    ("min_p", 1.5),
    ("repetition_penalty", 0),
    ("seed", -1),
    ("seed", 2**32),
    ("stop", [""]),
    ("timeout_s", 0),
)


class Checkpoint(NamedTuple):
    """Weights to test with. `has_system_role`: their template takes a system message as it is.

    `is_model` is false for an engine that has none, and so neither samples nor goes on for ever.
    """

    path: Path
    model_format: str = "gguf"
    quantization: str = "none"
    architecture: Architecture = Architecture()
    chat: Chat = Chat()
    has_system_role: bool = True
    is_model: bool = True
    arguments: tuple[str, ...] = ()


class Running(NamedTuple):
    """A running engine and what requests to it are made for."""

    address: Address
    target: Target
    process: EngineProcess
    is_model: bool

    @property
    def session(self) -> Session:
        return Session(self.address, self.target)


@contextlib.contextmanager
def started(
    engine: Engine, python: str, checkpoint: Checkpoint, *, context_length: int, slots: int
) -> Iterator[Running]:
    """Start `engine` on a checkpoint, as a launch does, and end it at the end."""
    machine = read_machine()
    settings = Settings(
        name="conformance",
        model_path=checkpoint.path,
        context_length=context_length,
        slots=slots,
        threads=machine.cores,
        batch_threads=machine.cores,
        arguments=checkpoint.arguments,
        model_format=checkpoint.model_format,
        quantization=checkpoint.quantization,
        architecture=checkpoint.architecture,
        chat=checkpoint.chat,
        memory_bytes=machine.memory_bytes,
    )
    address = new_address()
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        process = EngineProcess.start(
            engine,
            engine.command(python, settings, address),
            address=address,
            log_path=Path(folder) / "engine.log",
            variables=engine.variables(settings),
        )
        try:
            process.wait_ready(READY_WITHIN_S)
            target = Target(settings.name, engine.name, engine.wire, context_length)
            yield Running(address, target, process, checkpoint.is_model)
        finally:
            process.stop()


class EngineConformance:
    """Subclass it as the module's docstring says; a test here is a promise to every caller."""

    engine: ClassVar[Engine]

    @pytest.fixture(scope="class")
    @classmethod
    def python(cls) -> str:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls) -> Checkpoint:
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def running(cls, python: str, checkpoint: Checkpoint) -> Iterator[Running]:
        """An engine with several slots and a small context."""
        with started(cls.engine, python, checkpoint, context_length=SMALL_CONTEXT, slots=SLOTS) as running:
            yield running

    @pytest.fixture(scope="class")
    @classmethod
    def single(cls, python: str, checkpoint: Checkpoint) -> Iterator[Running]:
        """An engine with one slot and a large context."""
        with started(cls.engine, python, checkpoint, context_length=LARGE_CONTEXT, slots=1) as running:
            yield running

    @pytest.fixture
    def session(self, running: Running) -> Session:
        return running.session

    # --- answers -----------------------------------------------------------------------------------------------------

    def test_a_prompt_is_taken_as_it_stands_and_a_chat_through_the_template(self, session: Session) -> None:
        raw, chat = session.generate("Hello", max_tokens=4), session.chat("Hello", max_tokens=4)
        assert raw.usage.prompt_tokens < chat.usage.prompt_tokens

    def test_usage_counts_prompt_and_answer(self, session: Session) -> None:
        result = session.generate(WORDS, max_tokens=8, temperature=0)
        assert result.finish_reason == "length"
        assert result.usage.completion_tokens == 8
        assert result.usage.total_tokens == result.usage.prompt_tokens + 8
        assert session.generate(f"{WORDS} {WORDS}", max_tokens=1).usage.prompt_tokens > result.usage.prompt_tokens

    def test_counted_tokens_are_those_of_the_chat(self, session: Session) -> None:
        talk = [
            {"role": "user", "content": "Grüße, 世界 and 🙂"},
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "And now?"},
        ]
        for messages in ("Hi", talk):
            assert session.count_tokens(messages) == session.chat(messages, max_tokens=1).usage.prompt_tokens

    def test_a_streams_pieces_add_up_to_the_answer(self, session: Session) -> None:
        whole = session.chat(QUESTION, max_tokens=24, temperature=0)
        with session.chat_stream(QUESTION, max_tokens=24, temperature=0) as stream:
            chunks = list(stream)
        assert len(chunks) > 4
        assert "".join(chunk.text for chunk in chunks) == stream.result.text == whole.text
        assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == [whole.finish_reason]

    def test_the_same_request_alone_has_the_same_greedy_answer(self, session: Session) -> None:
        first, second = (session.chat(QUESTION, temperature=0, max_tokens=32) for _ in range(2))
        assert first.text == second.text

    def test_the_same_seed_gives_the_same_answer_and_another_another(self, running: Running) -> None:
        def answer(seed: int) -> str:
            return running.session.chat(QUESTION, temperature=1.5, top_p=1.0, seed=seed, max_tokens=32).text

        assert answer(7) == answer(7)
        if running.is_model:
            assert len({answer(seed) for seed in (7, 8, 9)}) > 1

    def test_a_high_temperature_changes_the_answer(self, running: Running) -> None:
        if not running.is_model:
            pytest.skip("there is no model to sample from")
        greedy = running.session.chat(QUESTION, temperature=0, max_tokens=32).text
        assert running.session.chat(QUESTION, temperature=2, top_p=1.0, seed=1, max_tokens=32).text != greedy
        assert running.session.chat(QUESTION, temperature=2, top_k=1, seed=1, max_tokens=32).text == greedy
        assert running.session.chat(QUESTION, temperature=2, min_p=1.0, seed=1, max_tokens=32).text == greedy

    def test_a_repetition_penalty_reaches_back_to_the_prompt(self, running: Running) -> None:
        if not running.is_model:
            pytest.skip("there is no model to sample from")
        plain, other = (
            running.session.generate(WORDS, temperature=0, repetition_penalty=penalty, max_tokens=24).text
            for penalty in (1.0, 3.0)
        )
        assert plain != other

    def test_every_field_is_sent_so_that_defaults_are_the_same_everywhere(self, running: Running) -> None:
        with recording() as (address, received), pytest.raises(InvalidRequestError, match="recorded"):
            Session(address, running.target).generate("Hello")
        wire = running.target.wire
        sent = {wire.names.get(name, name): value for name, value in DEFAULTS.items() if name not in wire.unsupported}
        assert {name: received[0].get(name) for name in sent} == sent
        assert received[0]["max_tokens"] == running.target.context_length

    # --- where it ends -----------------------------------------------------------------------------------------------

    def test_stop_texts_end_the_answer_and_are_not_in_it(self, session: Session) -> None:
        whole = session.generate(WORDS, temperature=0, max_tokens=24).text
        stop = whole[len(whole) // 2 : len(whole) // 2 + 3]
        result = session.generate(WORDS, temperature=0, max_tokens=24, stop=stop)
        assert (result.text, result.finish_reason) == (whole[: whole.index(stop)], "stop")

    def test_a_stop_text_split_over_tokens_ends_the_answer(self, session: Session) -> None:
        with session.generate_stream(WORDS, temperature=0, max_tokens=24) as stream:
            pieces = [chunk.text for chunk in stream if chunk.text]
        middle = len(pieces) // 2
        stop = pieces[middle - 1][-1:] + pieces[middle][:2]
        whole = "".join(pieces)
        with session.generate_stream(WORDS, temperature=0, max_tokens=24, stop=stop) as stopped:
            text = "".join(chunk.text for chunk in stopped)
        assert text == stopped.result.text == whole[: whole.index(stop)]
        assert stopped.result.finish_reason == "stop"

    def test_the_first_of_several_stop_texts_counts(self, session: Session) -> None:
        whole = session.generate(WORDS, temperature=0, max_tokens=24).text
        third = len(whole) // 3
        stops = [whole[2 * third : 2 * third + 4], whole[third : third + 4]]
        first = min(whole.index(stop) for stop in stops)
        assert session.generate(WORDS, temperature=0, max_tokens=24, stop=stops).text == whole[:first]

    def test_the_end_of_the_context_ends_the_answer_with_length(self, session: Session) -> None:
        prompt = prompt_of_tokens(session, SMALL_CONTEXT - 12)
        result = session.generate(prompt, temperature=0)
        assert result.finish_reason == "length"
        assert SMALL_CONTEXT - 1 <= result.usage.total_tokens <= SMALL_CONTEXT

    def test_every_slot_has_the_whole_promised_context_at_the_same_time(self, session: Session) -> None:
        prompt = prompt_of_tokens(session, SMALL_CONTEXT - 8)
        with ThreadPoolExecutor(SLOTS) as pool:
            results = list(pool.map(lambda word: session.generate(f"{word}{prompt}", temperature=0), "abcd"))
        for result in results:
            assert result.usage.prompt_tokens > SMALL_CONTEXT - 16
            assert result.finish_reason == "length"

    # --- what is refused ---------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("name", "value"), OUT_OF_RANGE)
    def test_values_out_of_range_are_refused(self, session: Session, name: str, value: object) -> None:
        sampling: Any = {name: value}
        with pytest.raises(InvalidRequestError) as caught:
            session.chat("Hi", **sampling)
        assert caught.value.parameter == name

    def test_an_empty_prompt_is_refused(self, session: Session) -> None:
        for ask in (session.generate, session.chat):
            with pytest.raises(InvalidRequestError, match="not empty"):
                ask("")

    def test_more_tokens_than_the_context_are_refused(self, session: Session) -> None:
        with pytest.raises(ContextOverflowError) as caught:
            session.generate("Hi", max_tokens=SMALL_CONTEXT + 1)
        assert caught.value.context_length == SMALL_CONTEXT

    @pytest.mark.parametrize("times", [1, 10])
    def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(self, session: Session, times: int) -> None:
        prompt = " ".join(["word"] * (SMALL_CONTEXT + 20) * times)
        for ask in (session.generate, session.chat):
            with pytest.raises(ContextOverflowError) as caught:
                ask(prompt)
            assert caught.value.prompt_tokens >= SMALL_CONTEXT
            assert caught.value.context_length == SMALL_CONTEXT

    # --- many at once, and those who leave ---------------------------------------------------------------------------

    def test_more_requests_than_slots_are_all_answered(self, running: Running) -> None:
        def ask(number: int) -> Result:
            return running.session.chat(f"Say the number {number}.", temperature=0, max_tokens=6)

        with ThreadPoolExecutor(3 * SLOTS) as pool:
            together = list(pool.map(ask, range(3 * SLOTS)))
        alone = [ask(number) for number in range(3 * SLOTS)]
        assert [each.usage.prompt_tokens for each in together] == [each.usage.prompt_tokens for each in alone]
        assert all(each.usage.completion_tokens >= 1 for each in together)

    def test_batching_leaves_greedy_answers_as_they_are_where_that_is_promised(self, running: Running) -> None:
        if "batch_invariant" not in self.engine.capability.features:
            pytest.skip(f"{self.engine.name} does not promise it")

        def ask(number: int) -> str:
            return running.session.chat(f"Tell me about the number {number}.", temperature=0, max_tokens=24).text

        with ThreadPoolExecutor(SLOTS) as pool:
            together = list(pool.map(ask, range(SLOTS)))
        assert together == [ask(number) for number in range(SLOTS)]

    def test_a_client_that_leaves_frees_the_slot(self, single: Running) -> None:
        with single.session.generate_stream(" ".join([WORDS] * 20), temperature=0) as stream:
            next(stream)
        result = single.session.generate("Hello there, how are you", max_tokens=2, timeout_s=PROMPTLY_S)
        assert result.usage.completion_tokens >= 1

    def test_a_client_that_leaves_the_queue_is_forgotten(self, single: Running) -> None:
        with single.session.generate_stream(WORDS, temperature=0, max_tokens=400) as stream:
            next(stream)
            queued = single.session.generate_stream(" ".join([WORDS] * 20), temperature=0)
            waiting = threading.Thread(target=lambda: list(queued))
            waiting.start()
            queued.close()
            waiting.join()
        assert single.session.generate("Hello there, how are you", max_tokens=2, timeout_s=PROMPTLY_S).text is not None

    def test_asyncio_has_the_same_answers(self, running: Running) -> None:
        expected = running.session.chat(QUESTION, temperature=0, max_tokens=12)

        async def talk() -> None:
            async with AsyncSession(running.address, running.target) as session:
                reply = await session.chat(QUESTION, temperature=0, max_tokens=12)
                assert (reply.text, reply.usage) == (expected.text, expected.usage)
                assert await session.count_tokens(QUESTION) == expected.usage.prompt_tokens
                async with session.chat_stream(QUESTION, temperature=0, max_tokens=12) as stream:
                    assert "".join([chunk.text async for chunk in stream]) == expected.text
                answers = await asyncio.gather(*(session.generate("Hello there", max_tokens=4) for _ in range(8)))
                assert {answer.usage.prompt_tokens for answer in answers} == {answers[0].usage.prompt_tokens}

        asyncio.run(talk())


def prompt_of_tokens(session: Session, tokens: int) -> str:
    """Return a prompt of about as many tokens, never more, by the engine's own count."""
    few, many = (
        session.generate(" word" * count, max_tokens=1, temperature=0).usage.prompt_tokens for count in (20, 40)
    )
    per_word = (many - few) / 20
    return " word" * int((tokens - (few - 20 * per_word)) / per_word)


@contextlib.contextmanager
def recording() -> Iterator[tuple[Address, list[dict[str, Any]]]]:
    """Run a server that refuses every request, and keeps the JSON that it was sent."""
    received: list[dict[str, Any]] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines = list(iter(self.rfile.readline, b"\r\n"))
            length = next((int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length")), 0)
            received.append(json.loads(self.rfile.read(length) or b"{}"))
            body = b'{"error": {"code": 400, "message": "recorded"}}'
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield Address(f"http://127.0.0.1:{server.server_address[1]}"), received
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def unspoken_to() -> Iterator[Address]:
    """Return an address at which to fail when anybody connects to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield Address(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(BlockingIOError):
            listener.accept()

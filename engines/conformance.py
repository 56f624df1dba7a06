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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Unpack

import pytest

from engines.base import Address, Engine, Settings
from engines.generation import DEFAULTS, Result, Sampling, Target
from engines.index import CAPABILITIES
from engines.llama_cpp import default_threads
from engines.machine import read_machine
from engines.process import EngineProcess, new_address
from engines.session import AsyncSession, Session
from registry.errors import ContextOverflowError, GenerationError, InvalidRequestError, UnsupportedParameterError
from registry.spec import Architecture, Chat, Reasoning

READY_WITHIN_S = 600.0
SLOTS = 4
SMALL_CONTEXT, LARGE_CONTEXT = 512, 2048
# Far longer than a few tokens take on the slowest engine, far shorter than filling the large context.
PROMPTLY_S = 30.0


@dataclass
class Boat:
    is_afloat: bool


def weather(location: str) -> str:
    """Return the weather at `location`."""
    return f"rain in {location}"


def tide(harbour: str) -> str:
    """Return the tide in `harbour`."""
    return f"low in {harbour}"


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


# Every ability of a model that a method asks for, with the features of an engine that it needs, and the method.
ABILITIES: dict[str, frozenset[str]] = {
    "chat": frozenset(),
    "embed": frozenset({"embeddings"}),
    "infill": frozenset({"infill"}),
    "reasoning": frozenset({"reasoning"}),
}
ABILITY_USES: dict[str, Callable[[Session], object]] = {
    "chat": lambda session: session.chat("Hi"),
    "embed": lambda session: session.embed(["Hi"]),
    "infill": lambda session: session.infill("a", "b"),
}
FEATURE_USES: dict[str, Callable[[Session], object]] = {
    "logprobs": lambda session: session.generate("Hi", logprobs=1),
    "json_schema": lambda session: session.chat("Hi", json_schema={"type": "object"}),
    "tools": lambda session: session.chat("Hi", tools=[weather]),
    "reasoning": lambda session: session.chat("Hi", reasoning="on"),
    "reasoning_budget": lambda session: session.chat("Hi", reasoning=8),
    "embeddings": lambda session: session.embed(["Hi"]),
    "infill": lambda session: session.infill("a", "b"),
}


class Checkpoint(NamedTuple):
    """Weights to test with. `has_system_role`, `has_tools`: what their template takes; `thinks`: it always reasons.

    `is_model` is false for an engine that has none, and so neither samples nor goes on for ever.
    """

    path: Path
    model_format: str = "gguf"
    quantization: str = "none"
    architecture: Architecture = Architecture()
    chat: Chat = Chat()
    abilities: frozenset[str] = frozenset({"chat"})
    has_system_role: bool = True
    has_tools: bool = False
    thinks: bool = False
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

    @property
    def unthinking(self) -> Sampling:
        """What has the answer begin at once: a small model that thinks may never come to an end of it."""
        reasoning = self.target.reasoning
        return {"reasoning": "off"} if reasoning is not None and reasoning.hybrid else {}


@contextlib.contextmanager
def started(
    engine: Engine, python: str, checkpoint: Checkpoint, *, context_length: int, slots: int
) -> Iterator[Running]:
    """Start `engine` on a checkpoint, as a launch does, and end it at the end."""
    machine = read_machine()
    threads, _ = default_threads(machine)
    settings = Settings(
        name="conformance",
        model_path=checkpoint.path,
        context_length=context_length,
        slots=slots,
        threads=threads,
        batch_threads=threads,
        arguments=checkpoint.arguments,
        model_format=checkpoint.model_format,
        quantization=checkpoint.quantization,
        architecture=checkpoint.architecture,
        chat=checkpoint.chat,
        memory_bytes=machine.memory_bytes,
        embeds="embed" in checkpoint.abilities,
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
            target = Target(
                settings.name,
                engine.name,
                engine.wire,
                context_length,
                features=engine.capability.features,
                abilities=checkpoint.abilities,
                reasoning=checkpoint.chat.reasoning,
            )
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
            asked: Sampling = {**running.unthinking, "temperature": 1.5, "top_p": 1.0, "seed": seed, "max_tokens": 32}
            return running.session.chat(QUESTION, **asked).text

        assert answer(7) == answer(7)
        if running.is_model:
            assert len({answer(seed) for seed in (7, 8, 9)}) > 1

    def test_a_high_temperature_changes_the_answer(self, running: Running) -> None:
        if not running.is_model:
            pytest.skip("there is no model to sample from")

        def answer(**sampling: Unpack[Sampling]) -> str:
            asked: Sampling = {**running.unthinking, "max_tokens": 12, **sampling}
            return running.session.chat(QUESTION, **asked).text

        greedy = answer(temperature=0)
        assert answer(temperature=2, top_p=1.0, seed=1) != greedy
        assert answer(temperature=2, top_k=1, seed=1) == greedy
        assert answer(temperature=2, min_p=1.0, seed=1) == greedy

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

    def test_what_engine_or_model_cannot_do_is_refused_before_anything_is_sent(self, running: Running) -> None:
        """With all abilities the engine refuses what its capability lacks; without abilities the model refuses."""
        able = running.target._replace(abilities=frozenset(ABILITIES), reasoning=Reasoning("<think>", "</think>", True))
        unable = able._replace(abilities=frozenset(), reasoning=None, models_with=lambda ability: (f"with-{ability}",))
        with unspoken_to() as address:
            for feature, ask in FEATURE_USES.items():
                if feature not in running.target.features:
                    with pytest.raises(UnsupportedParameterError) as caught:
                        ask(Session(address, able))
                    assert caught.value.engine == self.engine.name
                    features = {each.engine: each.features for each in CAPABILITIES}
                    assert all(feature in features[engine] for engine in caught.value.engines)
            for name in running.target.wire.unsupported:
                sampling: Any = {name: 1}
                with pytest.raises(UnsupportedParameterError, match=name):
                    Session(address, able).generate("Hi", **sampling)
            for ability, use in ABILITY_USES.items():
                if ABILITIES[ability] <= running.target.features:
                    with pytest.raises(UnsupportedParameterError) as caught:
                        use(Session(address, unable))
                    assert caught.value.models == (f"with-{ability}",)

    # --- more than text for text -------------------------------------------------------------------------------------

    def test_a_system_message_counts_or_begins_the_first_user_message(
        self, running: Running, checkpoint: Checkpoint
    ) -> None:
        session = running.session
        system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a boat?"}
        reply = session.chat([system, user], temperature=0, max_tokens=8)
        assert session.count_tokens([system, user]) == reply.usage.prompt_tokens
        merged = [{"role": "user", "content": "Be brief.\n\nWhat is a boat?"}]
        if checkpoint.has_system_role:
            assert reply.notes == ()
            assert session.count_tokens([system, user]) != session.count_tokens([user])
        else:
            assert "no system role" in reply.notes[0]
            assert reply.usage.prompt_tokens == session.count_tokens(merged)
            assert reply.text == session.chat(merged, temperature=0, max_tokens=8).text

    def test_logprobs_have_an_entry_for_each_token(self, running: Running) -> None:
        self.needs(running, "logprobs")
        few: Sampling = {"temperature": 0, "max_tokens": 6, "logprobs": 3}
        answers = [running.session.chat(QUESTION, **few), running.session.generate(WORDS, **few)]
        for answer in answers:
            assert answer.logprobs is not None
            assert len(answer.logprobs) == answer.usage.completion_tokens
            assert "".join(each.token for each in answer.logprobs).endswith(answer.text)
            for token, logprob, alternatives in answer.logprobs:
                assert logprob <= 0
                assert 1 <= len(alternatives) <= 3
                assert alternatives[0][0] == token
                assert alternatives[0][1] == pytest.approx(logprob, abs=1e-3)
                assert [value for _, value in alternatives] == sorted((v for _, v in alternatives), reverse=True)
        none = running.session.generate(WORDS, temperature=0, max_tokens=6, logprobs=0).logprobs or ()
        assert [each.token for each in none] == [each.token for each in answers[1].logprobs or ()]
        assert {each.alternatives for each in none} == {()}
        assert running.session.generate(WORDS, temperature=0, max_tokens=6).logprobs is None

    def test_a_schema_is_satisfied_and_read(self, running: Running) -> None:
        self.needs(running, "json_schema")
        schema = {
            "type": "object",
            "properties": {"colour": {"enum": ["red", "green"]}, "count": {"type": "integer", "enum": [3, 4]}},
            "required": ["colour", "count"],
            "additionalProperties": False,
        }
        asked: Sampling = {**running.unthinking, "temperature": 0, "max_tokens": 64}
        reply = running.session.chat("Name a colour and a number.", json_schema=schema, **asked)
        assert reply.parsed == json.loads(reply.text)
        assert reply.parsed["colour"] in ("red", "green")
        assert reply.parsed["count"] in (3, 4)
        boat = running.session.chat("A boat?", json_schema=Boat, **asked).parsed
        assert isinstance(boat, Boat)
        assert boat.is_afloat in (True, False)

    def test_characters_of_several_tokens_come_whole(self, running: Running) -> None:
        """Nothing of a character that is split over tokens is lost or shown early, whatever the text."""
        if "json_schema" in running.target.features:
            text = "Grüße, 世界 🙂 und 🦙🏳️‍🌈"
            schema = {
                "type": "object",
                "properties": {"a": {"const": text}},
                "required": ["a"],
                "additionalProperties": False,
            }
            asked: Sampling = {**running.unthinking, "temperature": 0, "max_tokens": 120}
            stream = running.session.chat_stream("Go on", json_schema=schema, **asked)
            chunks = [chunk.text for chunk in stream]
            assert stream.result.parsed == {"a": text}
        else:
            stream = running.session.generate_stream("🙂🦙世界 " * 12, temperature=0, max_tokens=48)  # type: ignore[assignment]
            chunks = [chunk.text for chunk in stream]
        assert "".join(chunks) == stream.result.text
        assert "\N{REPLACEMENT CHARACTER}" not in stream.result.text

    def test_an_answer_that_is_cut_is_no_json(self, running: Running) -> None:
        self.needs(running, "json_schema")
        schema = {"type": "object", "properties": {"a": {"const": "word " * 40}}, "required": ["a"]}
        with pytest.raises(GenerationError, match="not whole JSON"):
            running.session.chat("Go on", json_schema=schema, temperature=0, max_tokens=8)

    def test_tools_are_called_or_refused_where_the_template_has_none(
        self, running: Running, checkpoint: Checkpoint
    ) -> None:
        self.needs(running, "tools")
        if not checkpoint.has_tools:
            with pytest.raises(UnsupportedParameterError, match="chat template") as caught:
                running.session.chat("Weather in Paris?", tools=[weather])
            assert caught.value.parameter == "tools"
            return
        question = {"role": "user", "content": "What is the weather in Paris?"}
        reply = running.session.chat([question], tools=[weather], tool_choice="required", temperature=0, max_tokens=128)
        assert reply.finish_reason == "tool_calls"
        call = reply.tool_calls[0]
        assert call.name == "weather"
        assert weather(**call.arguments)
        talk = [question, reply.message, call.answer(weather(**call.arguments))]
        assert running.session.chat(talk, tools=[weather], temperature=0, max_tokens=8).usage.prompt_tokens > 0
        named = running.session.chat(
            [question], tools=[weather, tide], tool_choice="tide", temperature=0, max_tokens=128
        )
        assert [each.name for each in named.tool_calls] == ["tide"]
        assert named.finish_reason == "tool_calls"

    def test_reasoning_is_apart_from_the_text(self, running: Running, checkpoint: Checkpoint) -> None:
        self.needs(running, "reasoning")
        if checkpoint.chat.reasoning is None:
            with pytest.raises(UnsupportedParameterError, match="does not reason"):
                running.session.chat("Hi", reasoning="on")
            return
        start = checkpoint.chat.reasoning.start or "<think>"
        with running.session.chat_stream(QUESTION, reasoning="on", temperature=0, max_tokens=64) as stream:
            chunks = list(stream)
        reply = stream.result
        assert "".join(chunk.reasoning for chunk in chunks) == (reply.reasoning or "")
        assert start not in reply.text
        if checkpoint.thinks:
            assert reply.reasoning
            assert 0 < reply.usage.reasoning_tokens <= reply.usage.completion_tokens
        if checkpoint.chat.reasoning.hybrid:
            assert running.session.chat(QUESTION, reasoning="off", temperature=0, max_tokens=8).reasoning is None

    def test_a_budget_limits_the_reasoning(self, running: Running, checkpoint: Checkpoint) -> None:
        self.needs(running, "reasoning_budget")
        if checkpoint.chat.reasoning is None:
            pytest.skip("the checkpoint does not reason")
        reply = running.session.chat(QUESTION, reasoning=4, temperature=0, max_tokens=64)
        assert reply.usage.reasoning_tokens <= 8

    def test_texts_have_vectors(self, running: Running, checkpoint: Checkpoint) -> None:
        self.needs(running, "embeddings")
        if "embed" not in checkpoint.abilities:
            pytest.skip("the checkpoint makes no vectors")
        first, second, again = running.session.embed(["a boat", "a very different text", "a boat"])
        assert len(first) == len(second) > 1
        assert first == pytest.approx(again, abs=1e-4)
        assert first != pytest.approx(second, abs=1e-4)

    def test_what_is_between_two_texts_is_filled_in(self, running: Running, checkpoint: Checkpoint) -> None:
        self.needs(running, "infill")
        if "infill" not in checkpoint.abilities:
            pytest.skip("the checkpoint fills nothing in")
        result = running.session.infill("def add(a, b):\n    return ", "\n\nprint(add(1, 2))", max_tokens=6)
        assert 1 <= result.usage.completion_tokens <= 6
        assert result.finish_reason in ("stop", "length")

    def needs(self, running: Running, feature: str) -> None:
        if feature not in running.target.features:
            pytest.skip(f"{self.engine.name} does not offer it, and says so")

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

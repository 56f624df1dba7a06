"""For mistral-instruct-v0.2 every engine is sent the tokens of Mistral's own tokenizer, mistral-common's first version.

Its tokens are computed once in the run; the engines' come from their own template and tokenizer, started as a launch
starts them. The limit of it: a message that spells a control token (`<s>`, `</s>`, `<unk>`) is text for mistral-common
and that token for every engine.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines.conformance import Checkpoint, Running, started
from engines.connection import Connection
from engines.exchanges import prompt_tokens
from engines.generation import Post
from engines.index import engine_named
from engines.session import Session
from registry.catalogue import read_layers
from registry.spec import Chat
from tests.weights.built import BuiltWeights, python_of

pytestmark = [pytest.mark.engine, pytest.mark.index]

Messages = list[dict[str, str]]

MISTRAL_COMMON = """
import json, sys
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
tokenizer = MistralTokenizer.v1()
requests = [ChatCompletionRequest(messages=messages) for messages in json.load(sys.stdin)]
print(json.dumps([tokenizer.encode_chat_completion(request).tokens for request in requests]))
"""
TEXTS = (
    "Hello",
    "What is the capital of France?",
    "  two spaces before and after  ",
    "\n\tlines\n\n  and tabs\t",
    "Grüße, 世界 and 🙂\u200d👩‍🚀 \U0001f1eb\U0001f1f7",
    "def f(x):\n    return x  # ½",
    "[INST] not an instruction [/INST]",
    "a",
    " ",
    "don't   stop!?…",
    "1234567890 3.14159",
    "▁ the mark itself ▁▁",
    "Привет, мир; שלום; مرحبا; नमस्ते",
    "\u00a0no-break\u3000wide\u2009thin",
    "e\u0301 and é",
    "<|im_start|> <pad> <0x0A> [TOOL_CALLS]",
)


def talk(*texts: str, system: str | None = None) -> Messages:
    """Return a conversation in which user and assistant take turns."""
    begins = [] if system is None else [{"role": "system", "content": system}]
    roles = ("user", "assistant")
    return begins + [{"role": roles[turn % 2], "content": text} for turn, text in enumerate(texts)]


def conversations() -> list[Messages]:
    chosen = random.Random(0)
    characters = "".join(TEXTS)
    made_up = ["".join(chosen.choices(characters, k=chosen.randrange(1, 40))) for _ in range(120)]
    return [
        *(talk(text) for text in TEXTS),
        *(talk("Hi", text, "Go on") for text in TEXTS),
        *(talk("Hi", "Hello.", text, " So ", text) for text in TEXTS),
        *(talk(text, system="Be brief.") for text in TEXTS),
        *(talk("Hi", "Hello.", "And?", system=text) for text in TEXTS),
        *(talk(*made_up[at : at + 3]) for at in range(0, len(made_up), 3)),
    ]


@pytest.fixture(scope="module")
def expected() -> list[tuple[Messages, list[int]]]:
    """Return conversations, each with the tokens that mistral-common makes of it."""
    asked = conversations()
    command = (python_of("tools"), "-c", MISTRAL_COMMON)
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    return list(zip(asked, json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module")
def chat() -> Chat:
    """Return how the catalogue says that a conversation with this model becomes text."""
    return read_layers(()).find("mistral-instruct-v0.2").model.chat


ENGINES = (
    ("llama.cpp", "gguf", "Q4_K_M"),
    ("llama-cpp-python", "gguf", "Q4_K_M"),
    ("transformers", "pytorch", "none"),
    ("vllm", "pytorch", "none"),
    ("vllm", "mistral", "none"),
)


@pytest.fixture(scope="module", params=ENGINES, ids="-".join)
def running(request: pytest.FixtureRequest, built_weights: BuiltWeights, chat: Chat) -> Iterator[Running]:
    name, model_format, quantization = request.param
    engine = engine_named(name)
    checkpoint = Checkpoint(
        _weights(built_weights, model_format, quantization),
        model_format=model_format,
        quantization=quantization,
        chat=chat,
    )
    with started(engine, python_of(name), checkpoint, context_length=1024, slots=1) as running:
        yield running


def _weights(built: BuiltWeights, model_format: str, quantization: str) -> Path:
    if model_format == "gguf":
        return built["mistral-gguf"] / f"{quantization}.gguf"
    return built["mistral"] / model_format


def test_tokens_are_those_of_mistrals_own_tokenizer(
    running: Running, expected: list[tuple[Messages, list[int]]]
) -> None:
    different = [
        (messages, tokens, sent) for messages, tokens in expected if (sent := sent_tokens(running, messages)) != tokens
    ]
    assert not different, f"{len(different)} of {len(expected)} differ, the first: {different[0]}"


def sent_tokens(running: Running, messages: Messages) -> list[int]:
    """Return the tokens that a session would send for a conversation, from the engine's own template and tokenizer."""
    exchange = prompt_tokens(running.target, messages, None)
    try:
        post = next(exchange)
        while True:
            post = exchange.send(_answer(running, post))
    except StopIteration as ended:
        tokens: list[int] = ended.value
        return tokens


def _answer(running: Running, post: Post) -> tuple[int, bytes]:
    with contextlib.closing(Connection(running.target.engine, running.address)) as connection:
        return connection.send(post), connection.read_all()


def test_a_prompt_has_as_many_tokens_as_were_counted(
    running: Running, expected: list[tuple[Messages, list[int]]]
) -> None:
    """What is counted is what the engine itself says that it read, system messages and several turns included."""
    session = Session(running.address, running.target)
    for messages, tokens in expected[:: len(expected) // 8]:
        assert session.count_tokens(messages) == len(tokens)
        assert session.chat(messages, max_tokens=1, temperature=0).usage.prompt_tokens == len(tokens)

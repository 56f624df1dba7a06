"""The contract on the engines that need no environment of their own to be here: echo, always, and llama.cpp."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engines.conformance import Checkpoint, EngineConformance
from engines.echo import Echo
from engines.installing import build_environment
from engines.llama_cpp import LlamaCpp
from engines.machine import read_machine
from registry.spec import Chat, Reasoning
from tests.fakes.smollm2 import install_smollm2


class TestEcho(EngineConformance):
    engine = Echo()

    @pytest.fixture(scope="class")
    @classmethod
    def python(cls) -> str:
        return sys.executable

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls) -> Checkpoint:
        return Checkpoint(
            Path("/none"),
            chat=Chat(reasoning=Reasoning("<think>", "</think>", hybrid=True)),
            abilities=frozenset({"chat", "tools", "embed", "infill", "reasoning"}),
            has_tools=True,
            thinks=False,
            is_model=False,
            arguments=("--tokens-per-second", "2000"),
        )


class TestThinkingEcho(TestEcho):
    """The same where the template knows less, and the model thinks first."""

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls) -> Checkpoint:
        return Checkpoint(
            Path("/none"),
            chat=Chat(reasoning=Reasoning("<think>", "</think>", hybrid=True)),
            has_system_role=False,
            thinks=True,
            is_model=False,
            arguments=("--no-system-role", "--no-tools", "--thinks", "let me see what was said before I answer"),
        )


@pytest.mark.engine
class TestLlamaCpp(EngineConformance):
    engine = LlamaCpp()

    @pytest.fixture(scope="class")
    @classmethod
    def python(cls, engine_cache: Path) -> str:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LAUNCH_CACHE", str(engine_cache))
            return build_environment(LlamaCpp().requirements_for(read_machine())).python

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, engine_cache: Path) -> Checkpoint:
        return Checkpoint(install_smollm2(engine_cache / "smollm2"), quantization="Q4_1")

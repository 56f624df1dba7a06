"""The contract on echo, always, and on llama.cpp with weights and templates of several kinds."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engines.conformance import Checkpoint, EngineConformance
from engines.echo import Echo
from engines.llama_cpp import LlamaCpp
from launcher.gateway.conformance import GatewayConformance
from registry.spec import Chat, Reasoning
from tests.engines.starting import RealEngineConformance
from tests.fakes.fim import with_fill_in
from tests.fakes.smollm2 import install_smollm2
from tests.fakes.templates import NO_SYSTEM, THINKING, TOOLS

HYBRID = Reasoning("<think>", "</think>", hybrid=True)


class TestEcho(GatewayConformance, EngineConformance):
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
            chat=Chat(reasoning=HYBRID),
            abilities=frozenset({"chat", "tools", "embed", "infill", "reasoning"}),
            has_tools=True,
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
            chat=Chat(reasoning=HYBRID),
            has_system_role=False,
            thinks=True,
            is_model=False,
            arguments=("--no-system-role", "--no-tools", "--thinks", "let me see what was said before I answer"),
        )


class LlamaCppConformance(GatewayConformance, RealEngineConformance):
    engine = LlamaCpp()

    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, engine_cache: Path) -> Path:
        return install_smollm2(engine_cache / "smollm2")


@pytest.mark.engine
class TestLlamaCpp(LlamaCppConformance):
    """Weights and template as they are published, and what fills in and makes vectors besides."""

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
        return Checkpoint(
            with_fill_in(weights, tmp_path_factory.mktemp("weights") / "smollm2.gguf"),
            quantization="Q4_1",
            abilities=frozenset({"chat", "embed", "infill"}),
            arguments=("--pooling", "mean"),
        )


@pytest.mark.engine
class TestLlamaCppWithTools(LlamaCppConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, weights: Path) -> Checkpoint:
        return Checkpoint(weights, quantization="Q4_1", chat=Chat(template=TOOLS), has_tools=True)


@pytest.mark.engine
class TestLlamaCppThinking(LlamaCppConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, weights: Path) -> Checkpoint:
        chat = Chat(template=THINKING, reasoning=HYBRID)
        return Checkpoint(weights, quantization="Q4_1", chat=chat, thinks=True)


@pytest.mark.engine
class TestLlamaCppWithoutSystemRole(LlamaCppConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, weights: Path) -> Checkpoint:
        return Checkpoint(weights, quantization="Q4_1", chat=Chat(template=NO_SYSTEM), has_system_role=False)

"""The contract on vLLM, with the same model unquantized, by GPTQ and by AWQ."""

from __future__ import annotations

from typing import ClassVar

import pytest

from engines.conformance import Checkpoint
from engines.vllm import Vllm
from registry.spec import Architecture
from tests.engines.starting import RealEngineConformance
from tests.weights.built import BuiltWeights

# In bfloat16, the model's own, the likeliest tokens tie now and then, and vLLM keeps both for `top_k` of 1.
FLOAT16 = ("--dtype", "float16")
SMOLLM2 = Architecture(layers=30, hidden_size=576, heads=9, kv_heads=3)


class VllmConformance(RealEngineConformance):
    engine = Vllm()
    weights: ClassVar[str]
    model_format: ClassVar[str]
    quantization: ClassVar[str]

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, built_weights: BuiltWeights) -> Checkpoint:
        return Checkpoint(built_weights[cls.weights], cls.model_format, cls.quantization, SMOLLM2, arguments=FLOAT16)


@pytest.mark.engine
class TestPytorch(VllmConformance):
    weights, model_format, quantization = "smollm2-pytorch", "pytorch", "none"


@pytest.mark.engine
class TestGptq(VllmConformance):
    weights, model_format, quantization = "smollm2-gptq", "gptq", "Int4"


@pytest.mark.engine
class TestAwq(VllmConformance):
    weights, model_format, quantization = "smollm2-awq", "awq", "Int4"

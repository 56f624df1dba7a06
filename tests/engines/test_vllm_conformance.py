"""The contract on vLLM, with unquantized weights; the launch matrix asks GPTQ and AWQ."""

from __future__ import annotations

import pytest

from engines.conformance import Checkpoint
from engines.vllm import Vllm
from registry.spec import Architecture
from tests.engines.starting import RealEngineConformance
from tests.weights.built import BuiltWeights

# In bfloat16, the model's own, the likeliest tokens tie now and then, and vLLM keeps both for `top_k` of 1.
FLOAT16 = ("--dtype", "float16")
SMOLLM2 = Architecture(layers=30, hidden_size=576, heads=9, kv_heads=3)


@pytest.mark.engine
class TestVllm(RealEngineConformance):
    engine = Vllm()

    @pytest.fixture(scope="class")
    @classmethod
    def checkpoint(cls, built_weights: BuiltWeights) -> Checkpoint:
        return Checkpoint(built_weights["smollm2-pytorch"], "pytorch", "none", SMOLLM2, arguments=FLOAT16)

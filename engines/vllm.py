"""vLLM: high throughput on CUDA GPUs, and on Linux CPUs by its CPU build."""

from registry.spec import Capability, FactRule, FormatSupport

CAPABILITY = Capability(
    engine="vllm",
    formats=(
        FormatSupport("pytorch", bits=(16,), otherwise="bitsandbytes left its tree for a plugin"),
        FormatSupport(
            "gptq",
            bits=(4, 8),
            refuses=(
                FactRule("desc_act", True, "refuses act-order GPTQ since 0.32, and these weights are"),
                FactRule("sym", False, "refuses asymmetric GPTQ since 0.32, and these weights are"),
            ),
        ),
        FormatSupport("awq", bits=(4,)),
        FormatSupport("fp8", accelerators=("cuda",)),
        FormatSupport("mistral", bits=(16,)),
    ),
    refusals={"gguf": "its GGUF reader left the tree for a plugin", "bnb": "bitsandbytes left its tree for a plugin"},
    systems=("Linux",),
    ranks={"cuda": 0, "cpu": 2},
    launchable=False,
    setup_bytes=3_000_000_000,
)

"""llama-cpp-python: llama.cpp's other binding, one request at a time, for those who built it for their hardware."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engines import llama_cpp
from engines.base import Address, Cause, Requirements, Settings, Wire
from engines.builds import requirements_of
from engines.causes import NOT_ENOUGH, find_cause
from engines.own_server import server_options
from registry.spec import Capability, FormatSupport, Machine

RUNNER = Path(__file__).with_name("runners") / "llama_cpp_python.py"
# On a CPU prompts are read as fast in small steps as in upstream's 512, and more of a conversation can be kept.
CPU_STEP_TOKENS = 128
SET_UP = "launch engines install llama-cpp-python"
# What its own layer says; before it, in llama.cpp's words, stands why.
OWN_CAUSES: tuple[tuple[str, Cause], ...] = (
    (
        r"quantized V cache requires flash_attn",
        Cause("a quantized V cache needs flash attention", "add `--flash-attn`"),
    ),
    (
        r"No module named '?(llama_cpp|aiohttp|llguidance)",
        Cause("`{0}` is not installed where the engine runs", SET_UP),
    ),
    (
        r"(?m)^(?:numpy\.\S*)?MemoryError|Unable to allocate [\d.]+ .iB",
        NOT_ENOUGH,
    ),
)
LAST_CAUSES: tuple[tuple[str, Cause], ...] = (
    (r"(?m)^llama-cpp-python: error: (.+)", Cause("llama-cpp-python could not start: {0}")),
)


class LlamaCppPython:
    """One model behind our own server, whose requests wait for each other."""

    name = "llama-cpp-python"
    capability = Capability(
        engine=name,
        formats=(FormatSupport("gguf"),),
        aliases=("llama_cpp_python", "llamacpp-python"),
        ranks={"cpu": 3, "metal": 2, "vulkan": 2, "cuda": 3},
        automatic=False,
        features=frozenset(("batch_invariant", "logprobs", "json_schema", "tools", "reasoning", "several_gpus")),
        setup_bytes=70_000_000,
        own_bytes=90_000_000,
    )
    wire = Wire()

    def requirements_for(self, machine: Machine) -> Requirements:
        return requirements_of(self.name, machine)

    def command(self, python: str, settings: Settings, address: Address) -> tuple[str, ...]:
        return (
            *(python, "-P", str(RUNNER)),
            *server_options(settings, address),
            *("--n-threads", str(settings.threads)),
            *("--n-threads-batch", str(settings.batch_threads)),
            *(("--n-batch", str(CPU_STEP_TOKENS)) if settings.accelerator == "cpu" else ("--n-gpu-layers", "-1")),
            *settings.arguments,
        )

    def variables(self, settings: Settings) -> Mapping[str, str]:
        return llama_cpp.LlamaCpp().variables(settings)  # the same library, which sees the same GPUs

    def stage_of(self, line: str) -> str | None:
        return None

    def cause_of(self, log: str) -> Cause | None:
        return find_cause(log, (*OWN_CAUSES, *llama_cpp.CAUSES, *LAST_CAUSES))

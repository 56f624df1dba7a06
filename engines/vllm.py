"""vLLM's own server: high throughput on CUDA GPUs, and on Linux CPUs by its CPU build."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from engines.base import ROUTES, Address, Cause, Requirements, Settings, Wire
from engines.builds import requirements_of
from engines.variables import OFFLINE, visible_gpus
from registry.cache import cache_folder
from registry.memory import cache_bytes_per_token
from registry.spec import Architecture, Capability, FactRule, FormatSupport, Machine

RUNNER = Path(__file__).with_name("runners") / "vllm_server.py"
REASONING_PLUGIN = RUNNER.with_name("vllm_reasoning.py")
REASONING_PARSER = "launch_tags"
# Where a schema lets it, a small model writes white space until its tokens are used up. llguidance knows more of JSON
# Schema than xgrammar, and is what the other engines have.
STRUCTURED = '{"backend": "guidance", "disable_any_whitespace": true}'
GIB = 1 << 30
# A block of the cache holds this many tokens on a CPU (0.32); one block more is vLLM's own, for no request.
CPU_BLOCK_TOKENS = 128
# Where nobody knows the layers, the cache gets this share of the memory.
CACHE_SHARE = 0.25
BYTES_OF_DTYPE: Mapping[str, int] = {"float32": 4}
# Our catalogue's names for how a model writes its calls of tools, and vLLM's for what reads them.
TOOL_PARSERS: Mapping[str, str] = {
    "deepseek-r1": "deepseek_v3",
    "deepseek_v3": "deepseek_v3",
    "deepseek-v3": "deepseek_v3",
    "deepseek-v3.1": "deepseek_v31",
    "deepseek-v3.2": "deepseek_v32",
    "deepseek-v4": "deepseek_v4",
    "gemma": "gemma4",
    "glm4": "glm45",
    "glm5": "glm47",
    "hermes": "hermes",
    "llama3": "llama3_json",
    "minimax": "minimax_m2",
    "minimax_m3": "minimax_m3",
    "mistral": "mistral",
    "qwen": "hermes",
}


class Vllm:
    """vLLM in a process of its own, on one machine."""

    name = "vllm"
    capability = Capability(
        engine=name,
        formats=(
            FormatSupport(
                "pytorch", bits=(16,), otherwise="bitsandbytes left its tree for a plugin", cpu_dtype="float32"
            ),
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
            FormatSupport("mistral", bits=(16,), cpu_dtype="float32"),
        ),
        refusals={
            "gguf": "its GGUF reader left the tree for a plugin",
            "bnb": "bitsandbytes left its tree for a plugin",
        },
        systems=("Linux",),
        ranks={"cuda": 0, "cpu": 2},
        features=frozenset(
            ("batching", "logprobs", "json_schema", "tools", "reasoning", "reasoning_budget", "several_gpus")
        ),
        splits_heads=True,
        setup_bytes=3_000_000_000,
        own_bytes=600_000_000,
    )
    wire = Wire(names={"reasoning_budget": "thinking_token_budget"}, routes=ROUTES)

    def requirements_for(self, machine: Machine) -> Requirements:
        return requirements_of(self.name, machine)

    def command(self, python: str, settings: Settings, address: Address) -> tuple[str, ...]:
        return (
            *(python, "-P", str(RUNNER)),
            *("--model", str(settings.model_path.absolute())),
            *("--served-model-name", settings.name),
            *address.as_options("--uds"),
            *("--max-model-len", str(settings.context_length)),
            *("--max-num-seqs", str(settings.slots)),
            *("--dtype", settings.dtype),
            *("--generation-config", "vllm"),
            *("--structured-outputs-config", STRUCTURED),
            *_load_options(settings),
            *_device_options(settings),
            *_chat_options(settings),
            *(("--enforce-eager",) if settings.starts_fast else ()),
            *(("--trust-remote-code",) if settings.trusts_remote_code else ()),
            "--disable-uvicorn-access-log",
            *settings.arguments,
        )

    def variables(self, settings: Settings) -> Mapping[str, str]:
        return {
            "VLLM_NO_USAGE_STATS": "1",
            **OFFLINE,
            "VLLM_CACHE_ROOT": str(cache_folder() / "vllm"),  # for what was compiled
            "VLLM_LOGGING_LEVEL": "INFO",
            "VLLM_LOGGING_COLOR": "0",
            **_reasoning_variables(settings),
            **_device_variables(settings),
        }

    def stage_of(self, line: str) -> str | None:
        from engines.vllm_log import read_stage  # its expressions take 2 ms, which every launch would wait for

        return read_stage(line)

    def cause_of(self, log: str) -> Cause | None:
        from engines.vllm_log import read_cause

        return read_cause(log)


def cache_bytes(architecture: Architecture, *, context_length: int, slots: int, value_bytes: int = 2) -> int | None:
    """Return the memory in which vLLM's cache on a CPU holds `slots` whole contexts, None where facts are missing."""
    token_bytes = cache_bytes_per_token(architecture, value_bytes)
    blocks = slots * math.ceil(context_length / CPU_BLOCK_TOKENS) + 1
    return token_bytes and blocks * CPU_BLOCK_TOKENS * token_bytes


def _load_options(settings: Settings) -> tuple[str, ...]:
    """Return where weights are read from: never from pickles."""
    if settings.model_format == "mistral":
        return ("--load-format", "mistral", "--config-format", "mistral", "--tokenizer-mode", "mistral")
    return ("--load-format", "safetensors")


def _device_options(settings: Settings) -> tuple[str, ...]:
    if settings.accelerator == "cpu":
        return ("--kv-cache-memory-bytes", str(_cpu_cache_bytes(settings)))
    return ("--tensor-parallel-size", str(max(1, len(settings.gpus))))


def _cpu_cache_bytes(settings: Settings) -> int:
    known = cache_bytes(
        settings.architecture,
        context_length=settings.context_length,
        slots=settings.slots,
        value_bytes=BYTES_OF_DTYPE.get(settings.dtype, 2),
    )
    return known or max(GIB, int(settings.memory_bytes * CACHE_SHARE))


def _chat_options(settings: Settings) -> tuple[str, ...]:
    chat, options = settings.chat, []
    if chat.template is not None and settings.model_format != "mistral":  # whose tokenizer has its own
        options += ["--chat-template", chat.template]
    if chat.reasoning is not None and chat.reasoning.end:
        options += ["--reasoning-parser-plugin", str(REASONING_PLUGIN), "--reasoning-parser", REASONING_PARSER]
    if (parser := TOOL_PARSERS.get(chat.tool_calls or "")) is not None:
        options += ["--enable-auto-tool-choice", "--tool-call-parser", parser]
    return tuple(options)


def _reasoning_variables(settings: Settings) -> Mapping[str, str]:
    reasoning = settings.chat.reasoning
    if reasoning is None or not reasoning.end:
        return {}
    return {"LAUNCH_REASONING_START": reasoning.start or "", "LAUNCH_REASONING_END": reasoning.end}


def _device_variables(settings: Settings) -> Mapping[str, str]:
    if settings.accelerator == "cpu":
        # Without it a worker process of its own imports everything a third time: 16 of 47 s, and 700 MB (0.32). It
        # would bind threads to cores and leave one of them free, as `threads` does.
        return {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "OMP_NUM_THREADS": str(settings.threads)}
    return visible_gpus(settings)

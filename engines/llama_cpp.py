"""llama.cpp by way of xllamacpp: GGUF files, on any CPU and most GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engines.base import ROUTES, Address, Cause, Requirements, Settings, Wire
from engines.builds import requirements_of
from engines.causes import FETCH_AGAIN, NOT_ENOUGH, find_cause
from engines.variables import visible_gpus
from registry.spec import FEATURES, Capability, FormatSupport, Machine

RUNNER = Path(__file__).with_name("runners") / "llama_cpp.py"

GIVE_FULL_PATHS = "paths among the engine's own options must be absolute"
# What the log says, what it means ({0} is the first group), what to do. The first that is found counts, so what
# llama.cpp says of an error itself comes before what it says of the consequences. Written to the logs of 2026.10.
CAUSES: tuple[tuple[str, Cause], ...] = (
    (r"there is no model file `(.+)`", Cause("the model file `{0}` is missing")),
    (r"invalid magic characters|failed to read magic", Cause("the model file is not a GGUF", FETCH_AGAIN)),
    (
        r"GGUF file is version (\d+) but",
        Cause(
            "the GGUF is of version {0}, which this llama.cpp does not know", "take an older conversion of the model"
        ),
    ),
    (
        r"GGUFv(\d+) is no longer supported",
        Cause("the GGUF is of version {0}, which llama.cpp no longer reads", "take a newer conversion of the model"),
    ),
    (
        r"tensor '(.+)' has invalid ggml type (\d+)",
        Cause("llama.cpp does not know the quantization of tensor `{0}` (type {1})", "choose another quantization"),
    ),
    (
        r"unknown model architecture: '(.+)'",
        Cause(
            "llama.cpp does not know the architecture `{0}`", "choose another format, so that another engine runs it"
        ),
    ),
    (
        r"(data is not within the file bounds|failed to read (?:header|key-value pairs|tensor info))",
        Cause("the GGUF is cut short or damaged: {0}", FETCH_AGAIN),
    ),
    (r"tensor '(.+)' not found", Cause("the GGUF lacks the tensor `{0}`", "take another conversion of the model")),
    (
        r"attempted to allocate +([\d.]+) MB|std::bad_alloc|out of memory|failed to allocate .*buffer",
        NOT_ENOUGH,
    ),
    (
        r"couldn't bind HTTP server socket, hostname: (.+), port: (\d+)",
        Cause("llama.cpp cannot listen at `{0}`, port {1}: it is in use or not allowed"),
    ),
    (r"quantized V cache requires flash_attn", Cause("a quantized V cache needs flash attention", "add `-fa on`")),
    (r"failed to load lora adapter '(.+)'", Cause("llama.cpp could not load the adapter `{0}`", GIVE_FULL_PATHS)),
    (r"Failed to load CLIP model from (.+)", Cause("llama.cpp could not load the projector `{0}`", GIVE_FULL_PATHS)),
    (r"common_chat_templates_init: error: (.+)", Cause("llama.cpp cannot read the chat template: {0}")),
    (
        r"No module named '?(xllamacpp)",
        Cause("`{0}` is not installed where the engine runs", "launch engines install llama.cpp"),
    ),
    (r"llama_model_load: error loading model: (.+)", Cause("llama.cpp could not load the model: {0}")),
    (r"(?m)^llama\.cpp: error: (.+)", Cause("llama.cpp could not start: {0}")),
)


class LlamaCpp:
    """llama.cpp's own server in a process of its own."""

    name = "llama.cpp"
    capability = Capability(
        engine=name,
        formats=(FormatSupport("gguf"),),
        ranks={"cpu": 0, "metal": 0, "rocm": 0, "vulkan": 0, "cuda": 1},
        own_bytes=80_000_000,
        aliases=("llamacpp", "llama_cpp", "llama-cpp", "xllamacpp"),
        features=frozenset(FEATURES),
    )
    wire = Wire(
        names={"repetition_penalty": "repeat_penalty", "reasoning_budget": "reasoning_budget_tokens"},
        counts_by_text=True,
        calls_by_schema=True,
        routes=ROUTES,
    )

    def requirements_for(self, machine: Machine) -> Requirements:
        return requirements_of(self.name, machine)

    def command(self, python: str, settings: Settings, address: Address) -> tuple[str, ...]:
        return (
            *(python, "-P", str(RUNNER)),
            *("--model", str(settings.model_path.absolute())),
            *("--alias", settings.name),
            *address.as_options("--host"),
            *("--ctx-size", str(settings.context_length * settings.slots)),
            *("--parallel", str(settings.slots)),
            *("--threads", str(settings.threads)),
            *("--threads-batch", str(settings.batch_threads)),
            *(("--gpu-layers", "all") if settings.accelerator != "cpu" else ()),
            *(() if settings.chat.template is None else ("--chat-template", settings.chat.template)),
            *(("--embedding",) if settings.embeds else ()),
            *settings.arguments,
        )

    def variables(self, settings: Settings) -> Mapping[str, str]:
        # Without the first an abort runs gdb over the process, where there is one. Each GPU holds a part of the layers.
        return {"GGML_NO_BACKTRACE": "1", **visible_gpus(settings)}

    def stage_of(self, line: str) -> str | None:
        return None

    def cause_of(self, log: str) -> Cause | None:
        return find_cause(log, CAUSES)


def default_threads(machine: Machine) -> tuple[int, int]:
    """Return how many threads decode, and how many read prompts and decode batches.

    One core is left to the rest of the machine while one stream decodes: with all of them, one busy core cuts the speed
    to a third (2 cores: 143 tok/s become 37; with one thread it stays at 86).
    """
    return max(1, machine.cores - 1), machine.cores

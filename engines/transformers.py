"""Transformers: every architecture first, and the quantizations that others do not read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from engines.base import Address, Cause, Requirements, Settings, Wire
from engines.builds import requirements_of
from engines.causes import FETCH_AGAIN, NOT_ENOUGH, find_cause
from engines.own_server import server_options
from engines.variables import OFFLINE, visible_gpus
from registry.spec import Capability, FormatSupport, Machine, quantization_bits

RUNNER = Path(__file__).with_name("runners") / "transformers.py"

INSTALL = "launch engines install transformers"
OWN_OPTIONS = "`--attn-implementation`, `--max-batch-tokens`, `--no-prefix-caching` and `--chat-template`"
OTHER_FORMAT = "choose another format, so that another engine runs it"
# What the log says, what it means ({0} is the first group), what to do. The first that is found counts. Written to the
# words of Transformers 5.23, torch 2.13, safetensors 0.8, optimum 2.3, gptqmodel 7.6 and bitsandbytes 0.50.
CAUSES: tuple[tuple[str, Cause], ...] = (
    (r"error: there is no model at `(.+)`", Cause("there is no model at `{0}`")),
    (
        r"DefaultCPUAllocator: |CUDA out of memory|MPS backend out of memory|std::bad_alloc|Cannot allocate memory"
        r"|error: (?:\w+\.)*(?:OutOf)?MemoryError|Memory footprint \d+ is more than",
        NOT_ENOUGH,
    ),
    (
        r"has model type `(.+?)` but Transformers does not recognize",
        Cause("Transformers does not know the architecture `{0}`", OTHER_FORMAT),
    ),
    (
        r"contains custom code which must be executed",
        Cause(
            "the model brings Python code of its own, which runs only if you say so",
            "add `--trust-remote-code` if you trust whoever published it",
        ),
    ),
    (
        r"Unrecognized configuration class .*?\.(\w+)'> for this kind of AutoModel",
        Cause("`{0}` is not of a model that writes text", "choose another model"),
    ),
    (
        r"Invalid layer type: (\w+)",
        Cause("Transformers has no continuous batching for layers of `{0}`", OTHER_FORMAT),
    ),
    (
        r"SafetensorError: (.+)",
        Cause("the weights are cut short or damaged: {0}", FETCH_AGAIN),
    ),
    (
        r"no file named model\.safetensors",
        Cause("there are no safetensors beside the model's `config.json`"),
    ),
    (
        r"Couldn't instantiate the backend tokenizer|Can't load tokenizer",
        Cause("the model's tokenizer is missing", "fetch the model again, with `tokenizer.json` or `tokenizer.model`"),
    ),
    (
        r"(?m)^(\S.*?) +\| MISMATCH +\|.*?ckpt: torch\.Size\((.+?)\) vs model: ?torch\.Size\((.+?)\)",
        Cause(
            "the model's config contradicts its weights: `{0}` has the shape {1}, not {2}",
            "`quantization_config` or sizes in `config.json` are of other weights: take another conversion",
        ),
    ),
    (
        r"error: \w+: the weights lack (.+)",
        Cause("the weights lack {0}", "the model's `config.json` says other than its weights: take another conversion"),
    ),
    (
        r"(?i)(?:requires|install|need)[^\n]{0,60}\b(bitsandbytes|optimum|gptqmodel|accelerate|llguidance|gguf)\b",
        Cause("`{0}` is not installed where the engine runs", INSTALL),
    ),
    (r"name 'QuantizeConfig' is not defined", Cause("`gptqmodel` is not installed where the engine runs", INSTALL)),
    (r"No module named '([\w.]+)'", Cause("`{0}` is not installed where the engine runs", INSTALL)),
    (
        r"error: unrecognized arguments: (.+)",
        Cause("the engine `transformers` has no option `{0}`", f"behind `--` it takes {OWN_OPTIONS}"),
    ),
    (r"(?m)^transformers: error: (.+)", Cause("Transformers could not start: {0}")),
)


class Transformers:
    """Transformers' continuous batching behind our own server, in a process of its own."""

    name = "transformers"
    capability = Capability(
        engine=name,
        formats=(
            FormatSupport("pytorch", bits=(16, 8, 4), cpu_dtype="float32"),
            FormatSupport("gptq", bits=(2, 3, 4, 8), cpu_dtype="float32"),
            FormatSupport("awq", bits=(4,), cpu_dtype="float32"),
            FormatSupport("bnb", bits=(4, 8), cpu_dtype="float32"),
            FormatSupport("fp8", accelerators=("cuda",)),
            FormatSupport("gguf", only_named="it unpacks the weights to several times their size", cpu_dtype="float32"),
        ),
        ranks={"cuda": 1, "metal": 1, "cpu": 1},
        aliases=("hf", "huggingface"),
        features=frozenset({"batching", "logprobs", "json_schema", "tools", "reasoning", "several_gpus"}),
        setup_bytes=3_600_000_000,
        own_bytes=500_000_000,
    )
    wire = Wire()

    def requirements_for(self, machine: Machine) -> Requirements:
        return requirements_of(self.name, machine)

    def command(self, python: str, settings: Settings, address: Address) -> tuple[str, ...]:
        return (
            *(python, "-P", *_one_process_for_each_gpu(settings), str(RUNNER)),
            *server_options(settings, address),
            *("--threads", str(settings.batch_threads)),
            *_loading(settings),
            *settings.arguments,
        )

    def variables(self, settings: Settings) -> Mapping[str, str]:
        return {
            **OFFLINE,
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONSAFEPATH": "1",  # torchrun starts the runner without `-P`, and its folder would shadow packages
            **(visible_gpus(settings) or {"CUDA_VISIBLE_DEVICES": ""}),
        }

    def stage_of(self, line: str) -> str | None:
        found = re.match(r"transformers: (?!error: |ready )(.+)", line)
        return found and found.group(1)

    def cause_of(self, log: str) -> Cause | None:
        return find_cause(log, CAUSES)


def _one_process_for_each_gpu(settings: Settings) -> tuple[str, ...]:
    if len(settings.gpus) < 2:
        return ()
    return ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(len(settings.gpus)))


def _loading(settings: Settings) -> Iterator[str]:
    """Yield how the weights are read; those of a repository that is quantized already say it themselves."""
    yield from ("--dtype", settings.dtype)
    bits = quantization_bits(settings.quantization)
    if settings.model_format == "pytorch" and bits in (4, 8):
        yield from ("--quantize", f"{bits}-bit")
    if settings.trusts_remote_code:
        yield "--trust-remote-code"

"""What vLLM's log says: what it is doing while it starts, and why it ended. Written to the logs of 0.32.

An error of a child process comes first, with its traceback; each process above it adds one of its own, which says no
more than that the one below failed.
"""

from __future__ import annotations

import re

from engines.base import Cause
from engines.causes import FETCH_AGAIN, NOT_ENOUGH, TAKE_LESS, find_cause

OTHER_ENGINE = "--engine transformers"

# What a line says, and in short what vLLM is doing from there on. The first that matches counts.
STAGES: tuple[tuple[str, str], ...] = (
    (r"Resolved architecture: (\w+)", "starting the engine's process for {0}"),
    (r"Initializing a V1 LLM engine", "preparing the device"),
    (r"Starting to load model", "loading weights"),
    (r"checkpoint shards: .*\| (\d+)/(\d+) ", "loading weights, {0} of {1} read"),
    (r"Loading weights took", "measuring memory"),
    (r"Warming up model for the compilation", "compiling"),
    (r"Dynamo bytecode transform time", "compiling for this machine"),
    (r"Compiling a graph for compile range \(\d+, (\d+)\) takes", "compiled for up to {0} tokens"),
    (r"Directly load the compiled graph", "reading what was compiled before"),
    (r"Capturing CUDA graphs.* (\d+)/(\d+) ", "recording CUDA graphs, {0} of {1}"),
    (r"Compile and warming up model for size (\d+)", "compiling for {0} tokens"),
    (r"KV cache size: ([\d,]+) tokens", "warming up, with room for {0} tokens"),
    (r"Starting vLLM server", "opening the endpoint"),
)

# What the log says, what it means ({0} is the first group), what to do. The first that is found counts.
CAUSES: tuple[tuple[str, Cause], ...] = (
    (
        r"\(([\d.]+) GiB KV cache is needed, which is larger than the available KV cache memory \(([\d.]+) GiB\)",
        Cause("the context needs {0} GiB of cache, and there are {1} GiB for it", TAKE_LESS, is_out_of_memory=True),
    ),
    (
        r"Available memory on node \d+ \(([\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested memory "
        r"for kv \(([\d.]+)",
        Cause("the context needs {1} GiB of cache, and {0} GiB of memory are free", TAKE_LESS, is_out_of_memory=True),
    ),
    (
        r"Free memory on device \S+ \(([\d.]+)/([\d.]+) GiB\) on startup is less than desired GPU memory utilization",
        Cause(
            "{0} of the GPU's {1} GiB are free, and vLLM wants more",
            "end what else uses the GPU, or put `-- --gpu-memory-utilization 0.5` at the end",
            is_out_of_memory=True,
        ),
    ),
    (r"No available memory for the cache blocks", Cause("no memory is left for the context", TAKE_LESS, True)),
    (
        r"CUDA out of memory|torch\.OutOfMemoryError|OutOfMemoryError: |DefaultCPUAllocator: can't allocate memory|"
        r"Cannot allocate memory|(?m:^(?:\(.+?\) )?(?:ERROR .+\] )?MemoryError\b)|std::bad_alloc|"
        r"memory allocation of \d+ bytes failed",
        NOT_ENOUGH,
    ),
    (
        r"Model architectures \['(.+?)'\] (?:are not supported|failed to be inspected)",
        Cause("vLLM does not know the architecture `{0}`", OTHER_ENGINE),
    ),
    (
        r"model type `(.+?)` but Transformers does not recognize this architecture",
        Cause("vLLM does not know the architecture `{0}`", OTHER_ENGINE),
    ),
    (
        r"contains custom code which must be executed|[Pp]lease pass the argument `trust_remote_code=True`",
        Cause("the model brings code of its own, which would be run", "--trust-remote-code, if you trust it"),
    ),
    (
        r"GPTQ group activation ordering \(desc_act=True\) is no longer supported",
        Cause("vLLM refuses GPTQ weights in act-order, and these are", OTHER_ENGINE),
    ),
    (
        r"Unsupported quantization config: bits=(\d+), sym=False",
        Cause("vLLM refuses asymmetric GPTQ weights, and these are", OTHER_ENGINE),
    ),
    (
        r"Unsupported quantization config: (.+?)(?: \[type=|\n|$)",
        Cause("vLLM does not run this quantization: {0}", OTHER_ENGINE),
    ),
    (
        r"Marlin does not support weight_bits = u?int(\d)",
        Cause("vLLM has no code here for weights quantized to {0} bits", OTHER_ENGINE),
    ),
    (r"Unknown quantization method: (\S+?)\. ", Cause("vLLM has no quantization `{0}`", OTHER_ENGINE)),
    (
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0",
        Cause("this GPU has no bfloat16", "--dtype float16"),
    ),
    (r"Cannot find any model weights with `(.+?)`", Cause("there are no safetensors in `{0}`")),
    (
        r"Error while deserializing header: (.+)|SafetensorError: (.+)",
        Cause("a file of weights is cut short or damaged: {0}{1}", FETCH_AGAIN),
    ),
    (
        r"InvalidCxxCompiler|No working C\+\+ compiler",
        Cause("to compile the model takes a C++ compiler, and there is none", "--start fast"),
    ),
    (
        r"No module named '?(vllm)\b",
        Cause("`{0}` is not installed where the engine runs", "launch engines install vllm"),
    ),
    (r"(?m)^\S+\.py: error: (.+)", Cause("vLLM refused an option: {0}", "options after `--` are vLLM's own")),
)

# An error at the end of a traceback, with what vLLM writes before it, and its kind.
ERROR = re.compile(
    r"^(?:\([\w -]+ pid=\d+\) )?(?:ERROR [\d-]+ [\d:]+ \[.+?\] )?((?:\w+\.)*\w*(?:Error|Exception)): (.+)$",
    re.MULTILINE,
)
PYDANTIC = re.compile(r"validation errors? for .+\n.*?Value error, (.+?)(?: \[type=|\n|$)")
# What says only that another process failed; where nothing else is said, that one was ended from outside.
CONSEQUENCE = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|EngineCore encountered an issue|"
    r"died unexpectedly|Cancelled"
)
OF_A_CHILD = ("(EngineCore", "(Worker", "(VllmWorker")
ENDED = Cause("vLLM's engine process was ended", "somebody ended it, or the system did so because memory ran out")


def read_stage(line: str) -> str | None:
    """Return in a few words what vLLM is doing from this line on, or None where the line does not say."""
    for pattern, words in STAGES:
        if found := re.search(pattern, line):
            return words.format(*found.groups())
    return None


def read_cause(log: str) -> Cause | None:
    """Return why vLLM ended: a known cause, else the first error in the log that is no other one's consequence."""
    if known := find_cause(log, CAUSES):
        return known
    if found := PYDANTIC.search(log):
        return Cause(f"vLLM could not start: {found[1]}")
    return _first_error(log, OF_A_CHILD if CONSEQUENCE.search(log) else "")


def _first_error(log: str, said_by: str | tuple[str, ...]) -> Cause | None:
    """Return the first error of the processes whose lines begin so; requests that were refused are in the log, too."""
    for found in ERROR.finditer(log):
        if found[0].startswith(said_by) and not CONSEQUENCE.search(found[0]):
            return Cause(f"vLLM could not go on: {found[1].rpartition('.')[2]}: {found[2]}")
    return ENDED if said_by else None

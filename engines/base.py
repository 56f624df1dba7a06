"""What an engine is: data about what it runs and needs, its command line, its words for ours, and its last words.

An engine module holds one class that satisfies `Engine`; everything that engines have in common is elsewhere:
environments in `environment.py`, processes in `process.py`, requests in `generation.py` and `session.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from registry.spec import Architecture, Capability, Chat, Machine

_NOTHING: Mapping[str, str] = {}

# What only some engines' servers have; the endpoint hands requests for the first three on as they come.
RESPONSES, MESSAGES, COUNT_TOKENS = "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"
METRICS = "/metrics"
ROUTES = frozenset((RESPONSES, MESSAGES, COUNT_TOKENS, METRICS))


class Requirements(NamedTuple):
    """What must be importable where the engine runs on one kind of machine.

    `versions` is a specifier such as `>=2026.10,<2027`; `lock` names a file of `engines/locks/` with hashes; `variant`
    is the build that it holds: `cpu`, `cuda13`, `vulkan`, …. `index_url` is where upstream publishes that build of the
    distribution, `torch_backend` uv's name for PyTorch's own index. `unused` says why the machine's GPU stays so.
    `release` is a version that was asked for by name, which no lock describes. `needs` are the distributions that must
    be beside it; `compiled` are those that managed environments do without where they are not needed and there is no
    compiler.
    """

    distribution: str
    import_name: str
    versions: str
    lock: str
    variant: str = "cpu"
    index_url: str = ""
    torch_backend: str = ""
    unused: str = ""
    release: str = ""
    needs: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()

    @property
    def accelerator(self) -> str:
        """What the build runs on: `cuda`, `rocm`, `vulkan`, `metal` or `cpu`."""
        return self.variant.rstrip("0123456789")


class Settings(NamedTuple):
    """Everything that an engine's command line is made from.

    `context_length` is in tokens and is promised to each of `slots` requests at once; `threads` decode,
    `batch_threads` read prompts and decode batches; `arguments` are the user's own, handed over as they are.
    `dtype` is a torch name, `auto` where nothing was decided; `gpus` are the numbers of those to use, none of them on a
    `cpu`; `memory_bytes` is what the machine has. `starts_fast`: ready sooner, for fewer tokens a second. `embeds`: the
    model makes vectors of texts.
    """

    name: str
    model_path: Path
    context_length: int
    slots: int
    threads: int
    batch_threads: int
    arguments: tuple[str, ...] = ()
    model_format: str = "gguf"
    quantization: str = "none"
    architecture: Architecture = Architecture()
    chat: Chat = Chat()
    accelerator: str = "cpu"
    gpus: tuple[int, ...] = ()
    dtype: str = "auto"
    memory_bytes: int = 0
    starts_fast: bool = True
    trusts_remote_code: bool = False
    embeds: bool = False


class Address(NamedTuple):
    """Where an engine listens: a Unix socket, or where there is none the host and port in `url`.

    An `is_endpoint` is OpenAI-compatible and somebody else's: its `url` may be https and have a path, and it may want
    to see a `key`.
    """

    url: str
    socket: Path | None = None
    is_endpoint: bool = False
    key: str | None = None

    def as_options(self, socket_option: str) -> tuple[str, ...]:
        """Return the options that have a server listen here; `socket_option` is what it calls a socket's path."""
        if self.socket is not None:
            return (socket_option, str(self.socket))
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return ("--host", host, "--port", port)

    def __repr__(self) -> str:
        return f"Address({str(self.socket or self.url)!r})"  # keys are for nobody's eyes


class Wire(NamedTuple):
    """An engine's names for our request fields.

    `names` maps our field to the engine's key where they differ; `unsupported` fields of sampling are refused before
    sending, as is all that the capability's features do not name. `counts_by_text`: its server renders a conversation
    as text, and says what the template knows, as llama.cpp's does; others make tokens of messages at once.
    `calls_by_schema`: a call of a tool that is required is had as JSON by a schema, because the server would let the
    model talk first for as long as it likes. `is_endpoint`: it is a gateway, which knows the model's defaults and
    template itself, and so gets only what was asked for. `routes` are those of ROUTES that its server has.
    """

    names: Mapping[str, str] = _NOTHING
    unsupported: frozenset[str] = frozenset()
    counts_by_text: bool = False
    calls_by_schema: bool = False
    is_endpoint: bool = False
    routes: frozenset[str] = frozenset()


class Cause(NamedTuple):
    """Why an engine ended, read from its log: a sentence, and what to do about it."""

    message: str
    hint: str | None = None
    is_out_of_memory: bool = False


class Engine(Protocol):
    """One engine: a class without state."""

    @property
    def name(self) -> str: ...
    @property
    def capability(self) -> Capability: ...
    @property
    def wire(self) -> Wire: ...

    def requirements_for(self, machine: Machine) -> Requirements | None:
        """Return what must be installed to run on `machine`; None: it runs on the launcher's own Python as it is."""
        ...

    def command(self, python: str, settings: Settings, address: Address) -> tuple[str, ...]:
        """Return the command that serves `settings` at `address` with the environment's `python`."""
        ...

    def variables(self, settings: Settings) -> Mapping[str, str]:
        """Return the environment variables that the engine's process gets besides the launcher's own."""
        ...

    def stage_of(self, line: str) -> str | None:
        """Return what a line of the log says that the engine is doing while it loads, or None."""
        ...

    def cause_of(self, log: str) -> Cause | None:
        """Return why the engine ended, from the last lines of its log, or None where they do not say."""
        ...

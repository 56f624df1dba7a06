"""What `launch.yaml` may say: the long options of `launch serve` and of a model, checked as on the command line.

`ServeFileEntry` takes plain data whose keys are spelled with hyphens; `json_schema` describes the same for editors.
Reading a file, and what it means, is `serve_file.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SkipValidation, model_validator

from engines.index import CAPABILITIES
from launcher.gpus import read_gpus
from launcher.precision import read_dtype
from launcher.quantities import parse_context, parse_size_bytes, parse_time_s
from registry.errors import LaunchError
from registry.request import read_engine, read_hubs
from registry.schema import Count, FormatName, ModelEntry, PlacedError, Size, Text, matches
from registry.yaml_document import shown

# As requests may name a model: also `org/name`, and `name:tag` as other servers have it.
_SERVED_NAME = r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,159}"


def hyphenated(name: str) -> str:
    """Return an option's name in Python as the command line spells it."""
    return name.replace("_", "-")


def _written_as(parse: Callable[[str], object]) -> BeforeValidator:
    """Return a check that `parse` understands a text or a number, which becomes text."""

    def check(value: object) -> object:
        text = shown(value) if isinstance(value, bool) else str(value)
        parse(text)
        return text

    return BeforeValidator(check, json_schema_input_type=int | str)


def _known_to(read: Callable[[Any], object]) -> AfterValidator:
    """Return a check that `read` knows a word of the request, with what it says otherwise."""

    def check(value: object) -> object:
        try:
            read(value)
        except LaunchError as error:
            cause = error.message[0].lower() + error.message[1:]
            raise PlacedError(f"cannot be used: {cause}", (), hint=error.hint) from error
        return value

    return AfterValidator(check)


def _engine_args(value: object) -> object:
    """Return the words of a list as text, and a mapping of plain values as it is."""
    if isinstance(value, list):
        return [_word(word, index) for index, word in enumerate(value)]
    if not isinstance(value, dict):
        raise ValueError("is neither a list of words nor a mapping of options")
    for name, given in value.items():
        if isinstance(given, list | dict):
            raise PlacedError("is not a plain value", (name,))
    return value


def _word(value: object, index: int) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        hint = "put it in quotes" if isinstance(value, bool) else None
        raise PlacedError("is not a word of a command line", (index,), hint=hint)
    return str(value)


def _on_or_off(value: object) -> object:
    return ("off", "on")[value] if isinstance(value, bool) else value


def _lock_file(value: object) -> object:
    return (None, "launch.lock")[value] if isinstance(value, bool) else value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _model_alone(value: object) -> object:
    return {"model": value} if isinstance(value, str) else value


Filled = Annotated[Text, Field(min_length=1)]
Time = Annotated[str, _written_as(parse_time_s)]
Bytes = Annotated[str, _written_as(parse_size_bytes)]
Context = Annotated[str, _written_as(parse_context)]
Engine = Annotated[Filled, _known_to(lambda name: read_engine(name, CAPABILITIES))]
Hubs = Annotated[Filled, _known_to(read_hubs)]
Dtype = Annotated[Filled, _known_to(read_dtype)]
Gpus = Annotated[int | str | list[int], SkipValidation, _known_to(read_gpus)]
EngineArgs = Annotated[list[str | int | float] | dict[str, Any], SkipValidation, AfterValidator(_engine_args)]
Hosts = Annotated[list[Filled], BeforeValidator(_listed, json_schema_input_type=str | list[str])]
AccessLog = Annotated[Filled, BeforeValidator(_on_or_off, json_schema_input_type=bool | str)]
LockFile = Annotated[Filled | None, BeforeValidator(_lock_file, json_schema_input_type=bool | str)]
ServedName = Annotated[str, matches(_SERVED_NAME, "a name such as `gpt-4o-mini` or `org/name`")]
Wait = Annotated[int, Field(ge=0)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, alias_generator=hyphenated)

    @model_validator(mode="before")
    @classmethod
    def _is_where_it_belongs(cls, data: Any) -> Any:
        for name in data if isinstance(data, dict) else ():
            if name == "api-key":
                hint = "say it as LAUNCH_API_KEY, or in a file of its own by `api-key-file`"
                raise PlacedError("does not belong into a file that is shared", (name,), hint=hint)
            if name not in keys_of(cls) and name in keys_of(EndpointOptions):
                raise PlacedError("is an option of the whole endpoint: it belongs under `defaults`", (name,))
        return data


def keys_of(options: type[BaseModel]) -> Mapping[str, str]:
    """Return the keys that a mapping of options may have, each with its name in Python."""
    return {str(field.alias): name for name, field in options.model_fields.items()}


class EndpointOptions(_Options):
    """Options of `launch serve` itself."""

    host: Filled | None = Field(None, description="Where to listen")
    port: Annotated[int, Field(ge=0, le=65535)] | None = Field(None, description="0 takes any that is free")
    api_key_file: Filled | None = Field(None, description="Keys that may ask, one a line")
    no_api_key: bool | None = Field(None, description="Ask nobody for a key, whoever can reach it")
    allowed_host: Hosts | None = Field(None, description="Names that clients may use for it, also `NAME:PORT`")
    tls_cert: Filled | None = Field(None, description="Serve https with this certificate (PEM)")
    tls_key: Filled | None = Field(None, description="The certificate's private key (PEM)")
    max_queue: Wait | None = Field(None, description="Requests that may wait for each model")
    access_log: AccessLog | None = Field(None, description="A line of JSON a request: `off`, `on` (stderr) or a file")
    max_memory: Bytes | None = Field(None, description="What all models together may take: `12GB`, `512MB`")
    max_restarts: Wait | None = Field(None, description="How often in a row an engine that ends is started again")
    hang_after: Time | None = Field(None, description="How long an engine may be silent: `90s`, `2m`")
    json_: bool | None = Field(None, alias="json", description="Print JSON for programs")
    quiet: bool | None = Field(None, description="Print nothing but errors")
    verbose: bool | None = Field(None, description="Print what the engines say, too")


class ModelOptions(_Options):
    """Options of one model; under `defaults`, of all that do not say otherwise."""

    model_format: FormatName | None = Field(None, description="What the weights are stored as")
    quantization: Filled | None = Field(None, description="`Q4_K_M`, `Int4`, `8-bit`, `none`, …")
    size_in_billions: Size | None = Field(None, description="`7`, `0.5`, `0_5` or `7b`")
    engine: Engine | None = Field(None, description="`llama.cpp`, `transformers`, `vllm`, …")
    hub: Hubs | None = Field(None, description="`huggingface`, `modelscope`, or both in an order: `a,b`")
    revision: Filled | None = Field(None, description="A branch, tag or commit instead of the pinned one")
    context_length: Context | None = Field(None, description="Tokens for each request, or `max`")
    concurrency: Count | None = Field(None, description="Requests answered at once")
    threads: Count | None = Field(None, description="Threads to compute with")
    dtype: Dtype | None = Field(None, description="What to compute with: `auto`, `bfloat16`, `float16`, `float32`")
    start: Literal["fast", "throughput"] | None = Field(None, description="Ready sooner, or more tokens a second")
    gpus: Gpus | None = Field(None, description="`2` for two of them, `[0, 1]` for these, `none` for the CPU")
    trust_remote_code: bool | None = Field(None, description="Run Python code that comes with the weights")
    environment: Filled | None = Field(None, description="Where the engine is: `auto`, `current`, `managed`, a path")
    engine_args: EngineArgs | None = Field(None, description="The engine's own: a list of words, or a mapping")
    locked: LockFile = Field(None, description="Run exactly what this lock file says; `true`: `launch.lock`")
    offline: bool | None = Field(None, description="Use only what is here")
    no_install: bool | None = Field(None, description="Do not set up an engine")
    load: Literal["start", "demand"] | None = Field(
        None, description="`start`: before the endpoint answers; `demand`, the default: at the first request"
    )
    keep: Time | None = Field(None, description="How long it stays without a request: `90s`, `10m`, `2h`")
    pinned: bool | None = Field(None, description="Never unload it to make room for another")
    max_queue: Wait | None = Field(None, description="Requests that may wait for it; without it 16 for each at once")


class DefaultsEntry(ModelOptions, EndpointOptions):
    """Options of the endpoint, and those of all models."""


class ServedEntry(ModelOptions):
    """One model, and what differs from the defaults."""

    model: Filled = Field(description="A catalogue name, an alias, a repo id, or a path")
    name: ServedName | None = Field(None, description="What it is served as, instead of its own name")
    aliases: list[ServedName] = Field([], description="More names that requests may use")


class ServeFileEntry(_Options):
    """The whole file."""

    defaults: DefaultsEntry | None = None
    models: list[Annotated[ServedEntry, BeforeValidator(_model_alone, json_schema_input_type=str | ServedEntry)]] = (
        Field(min_length=1)
    )
    # Entries are checked where those of catalogue files are.
    registry: list[Annotated[str | ModelEntry, SkipValidation]] | None = Field(
        None, description="Layers of the catalogue: files and folders, and entries of this file's own"
    )


def json_schema() -> Mapping[str, Any]:
    """Return the JSON Schema of the whole file."""
    return ServeFileEntry.model_json_schema()

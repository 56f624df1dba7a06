"""Every option, declared once; commands take them in groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast, get_type_hints

import typer

from registry.errors import LaunchError

if TYPE_CHECKING:
    from engines.generation import Sampling
    from launcher.output import Output
    from launcher.planning import Request

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model's name, alias, repo id, or a path.")]


def _option(names: str, text: str, variable: str | None = None, **settings: Any) -> Any:
    return typer.Option(*names.split(), help=text, envvar=variable, **settings)


class Which(NamedTuple):
    """Which model, format, quantization, engine and hub."""

    model_name: Annotated[str | None, _option("-n --model-name", "The same as NAME.", "LAUNCH_MODEL_NAME")] = None
    model_path: Annotated[
        str | None, _option("-mp --model-path", "A GGUF file or a folder, instead of NAME.", "LAUNCH_MODEL_PATH")
    ] = None
    model_format: Annotated[
        str | None, _option("-f --model-format", "pytorch, gptq, awq, gguf, …", "LAUNCH_MODEL_FORMAT")
    ] = None
    quantization: Annotated[
        str | None, _option("-q --quantization", "Such as Q4_K_M, Int4, 8-bit, none.", "LAUNCH_QUANTIZATION")
    ] = None
    size_in_billions: Annotated[
        str | None,
        _option("-s --size-in-billions --model-size-in-billions", "Such as 7 or 0_5.", "LAUNCH_SIZE_IN_BILLIONS"),
    ] = None
    engine: Annotated[
        str | None, _option("-en --engine --model-engine", "llama.cpp, transformers, vllm, …", "LAUNCH_ENGINE")
    ] = None
    hub: Annotated[str | None, _option("--hub --download-hub", "huggingface or modelscope.", "LAUNCH_HUB")] = None
    revision: Annotated[
        str | None, _option("--revision", "A branch, tag or commit instead of the pinned one.", "LAUNCH_REVISION")
    ] = None
    registry: Annotated[
        list[Path] | None,
        _option("--registry", "A YAML file or folder of models over the built-in ones [env var: LAUNCH_REGISTRY]."),
    ] = None

    def request(self) -> Request:
        request = _given(
            model_format=self.model_format,
            quantization=self.quantization,
            size_in_billions=self.size_in_billions,
            engine=self.engine,
            hub=self.hub,
            revision=self.revision,
        )
        request["registry"] = tuple(self.registry or ())
        return request


class How(NamedTuple):
    """How the engine runs."""

    context_length: Annotated[
        str | None,
        _option("-c --context-length", "Tokens for each request, or max.", "LAUNCH_CONTEXT_LENGTH"),
    ] = None
    concurrency: Annotated[int | None, _option("--concurrency", "Requests answered at once.", "LAUNCH_CONCURRENCY")] = (
        None
    )
    threads: Annotated[int | None, _option("--threads", "Threads to compute with.", "LAUNCH_THREADS")] = None
    environment: Annotated[
        str | None,
        _option("--environment", "Where the engine is: auto, current, managed or a path.", "LAUNCH_ENVIRONMENT"),
    ] = None

    def request(self) -> Request:
        return _given(
            context_length=_read_context(self.context_length),
            concurrency=self.concurrency,
            threads=self.threads,
            environment=self.environment,
        )


class Network(NamedTuple):
    """What may be fetched."""

    offline: Annotated[bool, _option("--offline", "Use only what is here.", "LAUNCH_OFFLINE")] = False
    no_install: Annotated[bool, _option("--no-install", "Do not set up an engine.", "LAUNCH_NO_INSTALL")] = False

    def request(self) -> Request:
        return {"offline": self.offline, "install": not self.no_install}


class Ask(NamedTuple):
    """What the model is asked, and how the answer is sampled."""

    system: Annotated[str | None, _option("--system", "A system message, or @FILE.")] = None
    max_tokens: Annotated[int | None, _option("--max-tokens", "The longest answer.")] = None
    temperature: Annotated[float | None, _option("--temperature", "0 for the most likely token always.")] = None
    top_p: Annotated[float | None, _option("--top-p", "Share of the likely tokens to choose from.")] = None
    top_k: Annotated[int | None, _option("--top-k", "Number of the likely tokens to choose from; 0: all.")] = None
    min_p: Annotated[float | None, _option("--min-p", "Least share of the likeliest token's chance.")] = None
    repetition_penalty: Annotated[
        float | None, _option("--repetition-penalty", "Above 1: repeats become unlikely.")
    ] = None
    seed: Annotated[int | None, _option("--seed", "The same seed gives the same answer.")] = None
    stop: Annotated[list[str] | None, _option("--stop", "Text that ends the answer; may be repeated.")] = None

    def sampling(self) -> Sampling:
        names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop")
        given = {name: getattr(self, name) for name in names if getattr(self, name) != []}
        return cast("Sampling", {name: value for name, value in given.items() if value is not None})


class Printing(NamedTuple):
    """How things are printed."""

    json: Annotated[bool, _option("--json", "Print JSON for programs.", "LAUNCH_JSON")] = False
    quiet: Annotated[bool, _option("--quiet", "Print nothing but answers and errors.", "LAUNCH_QUIET")] = False
    verbose: Annotated[bool, _option("-v --verbose", "Print what the engine says, too.", "LAUNCH_VERBOSE")] = False

    def output(self, *, has_events: bool = True) -> Output:
        from launcher.output import Output

        return Output(as_json=self.json, quiet=self.quiet, verbose=self.verbose, has_events=has_events)


class UsageError(LaunchError):
    """The command line makes no sense; the program exits with 2."""

    kind = "usage"


def model_of(name: str | None, which: Which) -> str:
    """Return the model that was named, once."""
    given = [value for value in (name, which.model_name, which.model_path) if value is not None]
    if len(given) > 1:
        raise UsageError(named_twice(given))
    if not given:
        raise UsageError("No model is named", hint="launch list")
    if which.model_path is not None and not which.model_path.startswith(("/", "~", ".")):
        return f"./{which.model_path}"
    return given[0]


def named_twice(names: Sequence[str]) -> str:
    """Return the message for more than one name."""
    return f"The model is named {len(names)} times: {', '.join(f'`{name}`' for name in names)}"


def request_of(*groups: Which | How | Network, engine_args: tuple[str, ...] = ()) -> Request:
    """Return what several groups of options ask for."""
    request: Request = {"engine_args": engine_args}
    for group in groups:
        request.update(group.request())
    return request


def grouped(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let a command take its options as groups: parameters whose type is a named tuple become its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if hasattr(hint, "_field_defaults")}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _parameters_of(groups[parameter.name])
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name], kind=parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**values: Any) -> Any:
        built = {name: group(*(values.pop(field) for field in group._fields)) for name, group in groups.items()}
        return command(**built, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters_of(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(field, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field])
        for field, default in group._field_defaults.items()
    ]


def _read_context(text: str | None) -> int | str | None:
    if text is None or text.lower() == "max":
        return text and text.lower()
    digits = text.replace("_", "").replace(",", "")
    if not digits.isdigit():
        raise UsageError(f"`--context-length` must be a whole number or `max`, not `{text}`")
    return int(digits)


def _given(**values: Any) -> Request:
    return cast("Request", {name: value for name, value in values.items() if value is not None})

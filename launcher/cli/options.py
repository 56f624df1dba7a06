"""Every option, declared once; commands take them in groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, cast, get_args, get_type_hints

import typer

from launcher.care import Care
from launcher.quantities import parse_context, parse_time_s
from registry.errors import LaunchError

if TYPE_CHECKING:
    from engines.generation import Sampling
    from launcher.exposure import Exposure
    from launcher.output import Output
    from launcher.planning import Request

_Quantity = TypeVar("_Quantity")

SHOWN_IN_PS = "others on this machine see `--api-key` in `ps`: LAUNCH_API_KEY and `--api-key-file` keep a key to you"

Name = Annotated[str | None, typer.Argument(metavar="[NAME]", help="A model's name, alias, repo id, or a path.")]


def option(names: str, value: str | None, text: str, *, heading: str | None = None, **settings: Any) -> Any:
    """Return an option with what stands for its value in the help, and the heading there."""
    return typer.Option(
        *names.split(), metavar=value, help=text, show_envvar=False, rich_help_panel=heading, **settings
    )


def setting(names: str, value: str | None, text: str, **settings: Any) -> Any:
    """Return an option that the environment can set too, as LAUNCH_ and its first long name, which its help says."""
    name = next(name for name in names.split() if name.startswith("--"))
    variable = "LAUNCH_" + name.lstrip("-").replace("-", "_").upper()
    return option(names, value, f"{text} [${variable}]", envvar=variable, **settings)


ModelName = Annotated[str | None, option("-n --model-name", "NAME", "The same as NAME.")]
Registry = Annotated[
    list[Path] | None,
    option("--registry", "PATH", "YAML with models that go before the built-in ones. [$LAUNCH_REGISTRY]"),
]


class Which(NamedTuple):
    """Which model, format, quantization, engine and hub."""

    model_name: ModelName = None
    model_path: Annotated[
        str | None, option("-mp --model-path", "PATH", "A GGUF file or a folder, instead of NAME.")
    ] = None
    model_format: Annotated[str | None, setting("-f --model-format", "FORMAT", "pytorch, gptq, awq, gguf, …")] = None
    quantization: Annotated[str | None, setting("-q --quantization", "NAME", "Q4_K_M, Int4, 8-bit, none, …")] = None
    size_in_billions: Annotated[
        str | None, setting("-s --size-in-billions --model-size-in-billions", "BILLIONS", "7, 0.5 or 0_5.")
    ] = None
    engine: Annotated[
        str | None, setting("-en --engine --model-engine", "NAME", "llama.cpp, transformers, vllm, …")
    ] = None
    hub: Annotated[
        str | None, setting("--hub --download-hub", "NAME", "huggingface, modelscope, or both in an order: a,b.")
    ] = None
    revision: Annotated[
        str | None, setting("--revision", "NAME", "A branch, tag or commit instead of the pinned one.")
    ] = None
    registry: Registry = None

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
        str | None, setting("-c --context-length", "TOKENS", "Tokens for each request, or max.")
    ] = None
    concurrency: Annotated[int | None, setting("--concurrency", "N", "Requests answered at once.")] = None
    threads: Annotated[int | None, setting("--threads", "N", "Threads to compute with.")] = None
    gpus: Annotated[
        str | None, setting("--gpus --n-gpu", "WHICH", "2 for two of them, 0,1 for these, none for the CPU.")
    ] = None
    gpu_idx: Annotated[str | None, option("--gpu-idx", "NUMBERS", "The same as --gpus with numbers.")] = None
    dtype: Annotated[
        str | None, setting("--dtype", "NAME", "auto, bfloat16, float16 or float32: what to compute with.")
    ] = None
    start: Annotated[
        str | None, setting("--start", "HOW", "fast: ready sooner, or throughput: more tokens a second.")
    ] = None
    trust_remote_code: Annotated[
        bool, setting("--trust-remote-code", None, "Run Python code that comes with the weights.")
    ] = False
    environment: Annotated[
        str | None,
        setting("--environment", "WHERE", "Where the engine is: auto, current, managed or a path."),
    ] = None

    def request(self) -> Request:
        return _given(
            context_length=None
            if self.context_length is None
            else quantity("--context-length", self.context_length, parse_context),
            concurrency=self.concurrency,
            threads=self.threads,
            gpus=_read_gpus(self.gpus, self.gpu_idx),
            dtype=self.dtype,
            start=self.start,
            trust_remote_code=self.trust_remote_code or None,
            environment=self.environment,
        )


class Network(NamedTuple):
    """What may be fetched."""

    offline: Annotated[bool, setting("--offline", None, "Use only what is here.")] = False
    no_install: Annotated[bool, setting("--no-install", None, "Do not set up an engine.")] = False

    def request(self) -> Request:
        return _given(offline=self.offline or None, install=False if self.no_install else None)


class Pinned(NamedTuple):
    """Whether a lock file says what is run."""

    locked: Annotated[str | None, setting("--locked", "[FILE]", "Run exactly what launch.lock, or FILE, says.")] = None

    def request(self) -> Request:
        is_yes = (self.locked or "").lower() in ("1", "true", "yes", "on")
        return _given(locked="launch.lock" if is_yes else self.locked or None)


class Sharing(NamedTuple):
    """Whether an engine that runs already is used, and how long it stays."""

    new: Annotated[bool, option("--new", None, "Start an engine of its own, also where an equal one runs.")] = False
    keep: Annotated[str | None, setting("--keep", "TIME", "Leave the engine running so long: 90s, 10m, 2h.")] = None

    def keep_s(self) -> float:
        """Return the seconds that the engine stays after its last user; raises UsageError for what is no time."""
        return quantity("--keep", self.keep or "0", parse_time_s)


class Elsewhere(NamedTuple):
    """An endpoint that is asked instead of launching here."""

    url: Annotated[
        str | None, setting("--url", "URL", "Ask what an endpoint serves there; nothing is started here.")
    ] = None


class Ask(NamedTuple):
    """What the model is asked, and how the answer is sampled."""

    system: Annotated[str | None, option("--system", "TEXT", "A system message, or @FILE.")] = None
    max_tokens: Annotated[int | None, option("--max-tokens", "N", "The longest answer.")] = None
    temperature: Annotated[float | None, option("--temperature", "NUMBER", "0 for the most likely token always.")] = (
        None
    )
    top_p: Annotated[float | None, option("--top-p", "NUMBER", "Share of the likely tokens to choose from.")] = None
    top_k: Annotated[int | None, option("--top-k", "N", "Number of the likely tokens to choose from; 0: all.")] = None
    min_p: Annotated[float | None, option("--min-p", "NUMBER", "Least share of the likeliest token's chance.")] = None
    repetition_penalty: Annotated[
        float | None, option("--repetition-penalty", "NUMBER", "Above 1: repeats become unlikely.")
    ] = None
    seed: Annotated[int | None, option("--seed", "N", "The same seed gives the same answer.")] = None
    stop: Annotated[list[str] | None, option("--stop", "TEXT", "Text that ends the answer; may be repeated.")] = None
    reasoning: Annotated[
        str | None, option("--reasoning", "HOW", "Whether to think first: on, off, auto, or at most so many tokens.")
    ] = None
    json_schema: Annotated[
        str | None, option("--json-schema", "FILE", "Answer with JSON that satisfies this schema.")
    ] = None

    def sampling(self) -> Sampling:
        names = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop")
        given = {name: getattr(self, name) for name in names if getattr(self, name) != []}
        if self.reasoning is not None:
            given["reasoning"] = int(self.reasoning) if self.reasoning.isdigit() else self.reasoning
        return cast("Sampling", {name: value for name, value in given.items() if value is not None})

    def schema(self) -> Mapping[str, Any] | None:
        """Return the schema in the file that was named, or None; raises UsageError for what is no JSON object."""
        if self.json_schema is None:
            return None
        import json

        path = Path(self.json_schema.removeprefix("@")).expanduser()
        try:
            schema = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"`{path}` cannot be read as a JSON schema: {error}") from error
        if not isinstance(schema, dict):
            raise UsageError(f"`{path}` is not a JSON schema: that is an object")
        return schema


class Reach(NamedTuple):
    """Where the endpoint answers, and whom."""

    host: Annotated[
        str, setting("--host", "ADDRESS", "Where to listen; where others can reach it, a key is needed.")
    ] = "127.0.0.1"
    port: Annotated[int, setting("--port", "N", "0 takes any that is free.", min=0, max=65535)] = 8000
    api_key_file: Annotated[
        Path | None, setting("--api-key-file", "FILE", "Keys that may ask, one a line, as KEY or NAME: KEY.")
    ] = None
    api_key: Annotated[
        list[str] | None,
        option("-ak --api-key", "KEY", "A key that may ask; `ps` shows it to others here. [$LAUNCH_API_KEY]"),
    ] = None
    no_api_key: Annotated[bool, setting("--no-api-key", None, "Ask nobody for a key, whoever can reach it.")] = False
    allowed_host: Annotated[
        list[str] | None,
        setting("--allowed-host", "NAME", "A name that clients may use for it, also NAME:PORT; may be repeated."),
    ] = None
    tls_cert: Annotated[Path | None, setting("--tls-cert", "FILE", "Serve https with this certificate (PEM).")] = None
    tls_key: Annotated[Path | None, setting("--tls-key", "FILE", "The certificate's private key (PEM).")] = None

    def exposure(self) -> Exposure:
        """Return where it answers and whom; raises ExposureError for what cannot be, or must not."""
        from launcher.endpoint import read_key
        from launcher.exposure import read_exposure
        from launcher.keys import key_of

        keys = [key_of(key, origin="`--api-key`") for key in self.api_key or ()]
        if key := read_key():
            keys.append(key_of(key, origin="LAUNCH_API_KEY"))
        exposure = read_exposure(
            host=self.host,
            port=self.port,
            keys=keys,
            key_file=self.api_key_file,
            without_key=self.no_api_key,
            allowed_hosts=self.allowed_host or (),
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
        )
        return exposure._replace(warnings=(*exposure.warnings, SHOWN_IN_PS)) if self.api_key else exposure

    def check_key_unseen(self) -> None:
        """Raise UsageError for a key on a line that stays in sight, in `ps` and on disk, as long as this runs."""
        if self.api_key:
            raise UsageError(
                "`--api-key` would be in sight as long as it runs, in `ps` and on disk",
                hint="say it as LAUNCH_API_KEY, or in a file by `--api-key-file`",
            )


class Traffic(NamedTuple):
    """How many requests wait, and what is written down of them."""

    max_queue: Annotated[
        int | None, setting("--max-queue", "N", "Requests that may wait; by default 16 for each at once.", min=0)
    ] = None
    access_log: Annotated[
        str, setting("--access-log", "WHERE", "A line of JSON for each request: off, on (stderr) or a file.")
    ] = "off"


class Watching(NamedTuple):
    """What is done about engines that crash or hang."""

    max_restarts: Annotated[
        int, setting("--max-restarts", "N", "How often in a row an engine that crashed is started again.", min=0)
    ] = 3
    hang_after: Annotated[
        str, setting("--hang-after", "TIME", "End an engine that gave no sign of life for so long; 0: never.")
    ] = "2m"

    def care(self) -> Care:
        """Return how engines are watched; raises UsageError for what is no time."""

        return Care(self.max_restarts, quantity("--hang-after", self.hang_after, parse_time_s))


class Printing(NamedTuple):
    """How things are printed."""

    json: Annotated[bool, setting("--json", None, "Print JSON for programs.")] = False
    quiet: Annotated[bool, setting("--quiet", None, "Print nothing but answers and errors.")] = False
    verbose: Annotated[bool, setting("-v --verbose", None, "Print what the engine says, too.")] = False

    def output(self, *, has_events: bool = True) -> Output:
        from launcher.output import Output

        return Output(as_json=self.json, quiet=self.quiet, verbose=self.verbose, has_events=has_events)


class UsageError(LaunchError):
    """The command line makes no sense; the program exits with 2."""

    kind = "usage"


def quantity(name: str, text: str, parse: Callable[[str], _Quantity]) -> _Quantity:
    """Return the time or size that an option was given; raises UsageError for what is none."""
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"`{name}` {error}") from error


def model_of(name: str | None, which: Which, pinned: Pinned | None = None) -> str:
    """Return the model that was named, once, by name or by path; if none was, the only one of the lock file."""
    path = which.model_path
    if path is not None and not path.startswith(("/", "~", ".")):
        path = f"./{path}"
    locked = None if pinned is None else pinned.request().get("locked")
    if locked is not None and (name, which.model_name, path) == (None, None, None):
        return _only_model(Path(locked))
    return one_name(name, which.model_name, path)


def one_name(*names: str | None) -> str:
    """Return the only name that was given; raises UsageError for none and for more."""
    name = at_most_one_name(*names)
    if name is None:
        raise UsageError("No model is named", hint="launch list")
    return name


def at_most_one_name(*names: str | None) -> str | None:
    """Return the name that was given, or None; raises UsageError for more than one."""
    given = [name for name in names if name is not None]
    if len(given) > 1:
        raise UsageError(named_twice(given))
    return next(iter(given), None)


def _only_model(lock_file: Path) -> str:
    from launcher.lockfile import read_lock

    names = [entry.model for entry in read_lock(lock_file)]
    if len(names) != 1:
        hint = f"launch {names[0]} --locked" if names else "launch lock NAME"
        raise UsageError(f"`{lock_file}` has {len(names)} models: name one", hint=hint)
    return names[0]


def named_twice(names: Sequence[str]) -> str:
    """Return the message for more than one name."""
    return f"The model is named {len(names)} times: {', '.join(f'`{name}`' for name in names)}"


def request_of(*groups: Which | How | Network | Pinned, engine_args: tuple[str, ...] = ()) -> Request:
    """Return what several groups of options ask for."""
    request: Request = {"engine_args": engine_args}
    for group in groups:
        request.update(group.request())
    return request


# What a long help shows options under, in this order; those of no group come last.
WHICH, HOW, ASK, SERVE, SHOW = (
    "Which model",
    "How it runs",
    "What it is asked",
    "How it serves",
    "What is done and shown",
)
HEADINGS: Mapping[Any, str] = {
    Which: WHICH,
    Pinned: WHICH,
    How: HOW,
    Elsewhere: ASK,
    Ask: ASK,
    Reach: SERVE,
    Traffic: SERVE,
    Watching: SERVE,
    Sharing: SERVE,
    Network: SHOW,
    Printing: SHOW,
}


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
        inspect.Parameter(
            field,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=_under(HEADINGS[group], hints[field]),
        )
        for field, default in group._field_defaults.items()
    ]


def _under(heading: str, annotation: Any) -> Any:
    """Return an option's type and description with the heading that it is shown under."""
    kind, described = get_args(annotation)
    described = copy(described)
    described.rich_help_panel = heading
    return Annotated[kind, described]


def _read_gpus(gpus: str | None, numbers: str | None) -> str | None:
    """Return which GPUs are asked for; a number alone is one by its number where numbers were asked for."""
    if gpus is not None and numbers is not None:
        raise UsageError("`--gpus` and `--gpu-idx` say both which GPUs to use", hint=f"--gpus {numbers}")
    return gpus if numbers is None else f"{numbers.rstrip(',')},"


def _given(**values: Any) -> Request:
    return cast("Request", {name: value for name, value in values.items() if value is not None})

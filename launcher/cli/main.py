"""The command `launch`: finds the command, cuts off the engine's own options, renders errors, sets the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import typer

from launcher.cli.application import application
from launcher.cli.options import UsageError
from registry.errors import ExposureError, LaunchError, SchemaError

DONE, COULD_NOT, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

# What people type who come from another tool, and what is meant.
_CURES = {
    "--max-model-len": "it is `--context-length` here",
    "--ctx-size": "it is `--context-length` here",
    "--n-ctx": "it is `--context-length` here",
    "--num-ctx": "it is `--context-length` here",
    "--parallel": "it is `--concurrency` here",
    "--max-num-seqs": "it is `--concurrency` here",
    "--repeat-penalty": "it is `--repetition-penalty` here",
    "--n-predict": "it is `--max-tokens` here",
    "--model": "it is `--model-name`, or `--model-path` for a file",
    "--tensor-parallel-size": "it is `--gpus` here",
    "--n-gpus": "it is `--gpus` here",
    "--num-gpus": "it is `--gpus` here",
    "--torch-dtype": "it is `--dtype` here",
    "--max-seq-len": "it is `--context-length` here",
    "--max-model-length": "it is `--context-length` here",
    "--ssl-certfile": "it is `--tls-cert` here",
    "--ssl-keyfile": "it is `--tls-key` here",
    "-e": "nothing has to be running first; what runs elsewhere is asked by launch chat --url URL",
    "--endpoint": "nothing has to be running first; what runs elsewhere is asked by launch chat --url URL",
}
_ENGINE_OPTIONS = {
    "--gpu-memory-utilization": "vllm",
    "--enforce-eager": "vllm",
    "--n-gpu-layers": "llama.cpp",
    "--flash-attn": "llama.cpp",
    "--cache-type-k": "llama.cpp",
    "--cache-type-v": "llama.cpp",
    "--mlock": "llama.cpp",
    "--batch-size": "llama.cpp",
    "--ubatch-size": "llama.cpp",
}
# What no engine has: behind `--` it was meant for us.
_OURS_ALONE = frozenset(
    (
        *("--context-length", "--concurrency", "--model-format", "--model-name", "--model-path", "--model-engine"),
        *("--engine", "--hub", "--registry", "--gpus", "--gpu-idx", "--n-gpu", "--size-in-billions", "--environment"),
        *("--prompt", "--dry-run", "--explain", "--offline", "--no-install", "--json", "--quiet", "--locked"),
        *("--api-key-file", "--no-api-key", "--allowed-host", "--tls-cert", "--tls-key", "--url"),
    )
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 could not, 2 wrong usage, 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    own, engine_arguments = _cut(given)
    try:
        _refuse_own(engine_arguments)
        return _run(_with_lock_file(own) or ["--help"], engine_arguments)
    except LaunchError as error:
        return _fail(error, as_json=_wants_json(own))
    except typer.TyperException as error:
        return _fail(_usage_error(error, given), as_json=_wants_json(own))
    except (KeyboardInterrupt, typer.Abort):
        _leave_terminal()
        return INTERRUPTED
    except BrokenPipeError:
        return _leave_broken_pipe()


def _wants_json(own: Sequence[str]) -> bool:
    """Return whether programs read the output, for a line that may be too wrong to be parsed."""
    import os

    return "--json" in own or os.environ.get("LAUNCH_JSON", "").lower() in ("1", "true", "t", "yes", "y", "on")


def _fail(error: LaunchError, *, as_json: bool) -> int:
    """Print an error and return its exit code."""
    from launcher.output import Output

    Output(as_json=as_json).error(error)
    return WRONG_USAGE if isinstance(error, UsageError | ExposureError | SchemaError) else COULD_NOT


def _cut(arguments: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return our words and, from the first `--` on, the engine's."""
    if "--" not in arguments:
        return list(arguments), ()
    at = arguments.index("--")
    return list(arguments[:at]), tuple(arguments[at + 1 :])


def _refuse_own(engine_arguments: Sequence[str]) -> None:
    """Raise UsageError for an option of ours among the engine's own, where no engine knows it."""
    for word in engine_arguments:
        name = word.partition("=")[0].replace("_", "-")
        if name in _OURS_ALONE:
            raise UsageError(
                f"`{name}` is an option of launch, and stands among those of the engine",
                hint=f"put `{name}` before the `--`",
            )


def _with_lock_file(own: Sequence[str]) -> list[str]:
    """Return our words with a file after `--locked`, which may stand alone; what follows is one if it looks so."""
    words: list[str] = []
    for word, following in zip_longest(own, own[1:], fillvalue=""):
        is_alone = word == "--locked" and not following.endswith((".lock", ".yaml", ".yml"))
        words.append("--locked=launch.lock" if is_alone else word)
    return words


def _run(own: Sequence[str], engine_arguments: tuple[str, ...]) -> int:
    result = application().main(own, prog_name="launch", standalone_mode=False, obj=engine_arguments)
    if result == INTERRUPTED:  # which is what typer makes of Ctrl-C
        raise KeyboardInterrupt
    return result if isinstance(result, int) else DONE


def _usage_error(error: Any, given: Sequence[str]) -> UsageError:
    """Return what typer found wrong as an error of ours, with the cure where one is known."""
    option = getattr(error, "option_name", None)
    possible = getattr(error, "possibilities", None)
    message = error.format_message().rstrip(".?").replace("'", "`")
    if option is None or (possible is None and "No such option" not in message):
        return UsageError(message[0].lower().upper() + message[1:], hint=_empty_variable(message, given))
    return UsageError(f"There is no option `{option}`", hint=_cure(option, possible or (), given))


def _cure(option: str, possible: Sequence[str], given: Sequence[str]) -> str | None:
    name = option.replace("_", "-")
    if name in _CURES:
        return _CURES[name]
    if name in _ENGINE_OPTIONS:
        value = _value_after(option, given)
        words = f"{name} {value}" if value else name
        return f"`{name}` is an option of {_ENGINE_OPTIONS[name]}: put `-- {words}` at the end"
    from difflib import get_close_matches

    near = get_close_matches(name, possible, n=1) or list(possible[:1])
    return f"did you mean `{near[0]}`?" if near else "launch --help"


def _value_after(option: str, given: Sequence[str]) -> str | None:
    for word, following in zip_longest(given, given[1:], fillvalue=""):
        if word.replace("_", "-") == option and following and not following.startswith("-"):
            return following
        if word.replace("_", "-").startswith(f"{option}="):
            return word.partition("=")[2]
    return None


def _empty_variable(message: str, given: Sequence[str]) -> str | None:
    return "is a shell variable empty?" if "requires an argument" in message else None


def _leave_terminal() -> None:
    """Take the progress off the screen and give the cursor back."""
    from launcher.output import Output

    Output().end_progress()


def _leave_broken_pipe() -> int:
    """Whoever read our output has gone; keep Python from complaining about that at exit."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return COULD_NOT

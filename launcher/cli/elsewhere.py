"""Asking what runs already, where `--url` or LAUNCH_URL says: nothing is planned, fetched or started here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from launcher.cli.options import Ask, Elsewhere, Printing, UsageError

if TYPE_CHECKING:
    from launcher.model import Model
    from launcher.output import Output

# What has a meaning without a launch: which of the models there, what it is asked, and how things are printed.
_MEANINGFUL = frozenset(
    {"name", "model_name", "prompt", "raw", "suffix", *Elsewhere._fields, *Ask._fields, *Printing._fields}
)


@contextmanager
def connected(context: Any, url: str, name: str | None, output: Output) -> Iterator[Model]:
    """Return a handle on the model `name` at `url`, or on the only one there, and say where the answers come from.

    Raises UsageError for options of a launch, and what `connect` raises.
    """
    from launcher.connecting import connect
    from registry.errors import UnknownModelError

    _refuse_launching(context, url)
    try:
        model = connect(url, model=name)
    except UnknownModelError as error:
        if error.suggestions:
            error.hint = f"launch chat {error.suggestions[0]} --url {url}"
        raise
    with model:
        output.event("attached", {"name": model.name, "url": model.base_url})
        output.say(f"using {model.name} at {model.base_url}")
        yield model


def refuse_without_question(context: Any) -> None:
    """Raise UsageError for a line that says whom to ask, but not what."""
    if _is_given_by_line(context, "url"):
        hint = f"launch chat --url {context.params['url']}, or a question with `--prompt`"
        raise UsageError("`--url` says whom to ask, and there is no question", hint=hint)


def _refuse_launching(context: Any, url: str) -> None:
    """Raise UsageError for an option on the line that says how to launch: settings in the environment may stay."""
    given = [_long_name(each) for each in context.command.params if _is_given(context, each.name)]
    if context.obj:
        given.append("--")
    if given:
        by_line = _is_given_by_line(context, "url")
        hint = "take `--url` away to launch it here" if by_line else "unset LAUNCH_URL"
        raise UsageError(f"`{given[0]}` is for a launch, and `{url}` is asked instead", hint=hint)


def _is_given(context: Any, name: str) -> bool:
    return name not in _MEANINGFUL and _is_given_by_line(context, name)


def _is_given_by_line(context: Any, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _long_name(parameter: Any) -> str:
    return str(max(parameter.opts, key=len))

"""The tree of commands. Each is made when it is asked for, so that one command does not pay for the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from launcher.cli.commands import ALIASES, COMMANDS, HIDDEN_DEFAULT, SHORTCUTS
from launcher.cli.options import HEADINGS, UsageError, grouped, named_twice

# Options that a look takes in; where there are more, they stand under headings.
ONE_LIST = 15


class LaunchCommand(TyperCommand):
    """A command that says what is wrong with its words: an option that has swallowed the next one, a second name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.allow_extra_args = True  # what an option has swallowed is often why there is one word too many
        super().parse_args(ctx, args)
        self._refuse_swallowed(ctx)
        if ctx.args and not ctx.resilient_parsing:
            self._refuse_extra(ctx)
        return []

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Show the options, under headings where they are more than a look takes in."""
        parameters: list[Any] = self.get_params(ctx)
        _write_options(ctx, formatter, "Arguments", [each for each in parameters if each.param_type_name == "argument"])
        options = [each for each in parameters if each.param_type_name == "option"]
        if len(options) > ONE_LIST:
            for heading in dict.fromkeys(HEADINGS.values()):
                _write_options(ctx, formatter, heading, [each for each in options if each.rich_help_panel == heading])
            options = [each for each in options if each.rich_help_panel is None]
        _write_options(ctx, formatter, "Options", options)

    def _refuse_swallowed(self, ctx: Any) -> None:
        known = {name for parameter in self.params for name in parameter.opts}
        for parameter in self.params:
            values = ctx.params.get(parameter.name)
            for value in values if isinstance(values, list | tuple) else (values,):
                if isinstance(value, str) and value.startswith("-") and value.replace("_", "-") in known:
                    raise UsageError(
                        f"`{max(parameter.opts, key=len)}` was given `{value}`", hint="is a shell variable empty?"
                    )

    def _refuse_extra(self, ctx: Any) -> None:
        first = ctx.params.get("name")
        if first is None:
            raise UsageError(f"`{ctx.args[0]}` is one word too many", hint=f"{ctx.command_path} --help")
        names = [first, *ctx.args]
        hint = "a question goes behind `--prompt`, in quotes" if "prompt" in ctx.params else None
        raise UsageError(named_twice(names), hint=hint)


def _write_options(ctx: Any, formatter: Any, heading: str, parameters: Sequence[Any]) -> None:
    records = [record for record in (each.get_help_record(ctx) for each in parameters) if record is not None]
    if records:
        with formatter.section(heading):
            formatter.write_dl(records)


class LaunchGroup(TyperGroup):
    """The first word decides: a command, else everything is for the hidden default command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0] in SHORTCUTS:
            args = [*SHORTCUTS[args[0]], *args[1:]]
        elif args and args[0] not in own and self._command_name(args[0]) is None:
            args = [HIDDEN_DEFAULT, *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name, entry in COMMANDS.items() if not entry.is_hidden]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        name = self._command_name(cmd_name)
        return None if name is None else _build(name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].text) for name in self.list_commands(ctx)])

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Show the default command's options as the program's own."""
        self.format_commands(ctx, formatter)
        default = _build(HIDDEN_DEFAULT)
        default.params += self.params
        default.format_options(ctx, formatter)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[NAME] [OPTIONS] [-- ENGINE OPTIONS]  |  COMMAND [ARGS]…"]

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        default = _build(HIDDEN_DEFAULT)
        with default.make_context(HIDDEN_DEFAULT, [], parent=ctx, resilient_parsing=True) as inner:
            return [*super().shell_complete(ctx, incomplete), *default.shell_complete(inner, incomplete)]

    def _command_name(self, word: str) -> str | None:
        name = word.replace("_", "-")
        return name if name in COMMANDS else ALIASES.get(name)


def application() -> Any:
    """Return the whole command line as typer runs it."""
    app = typer.Typer(cls=LaunchGroup, callback=_program, **{**_SETTINGS, "add_completion": True})
    # Typer wants to see a command to make a group; the group finds the commands itself.
    app.command("chat")(_program)
    return typer.main.get_command(app)


def _build(name: str) -> Any:
    module = import_module(f"launcher.cli.{COMMANDS[name].module}")
    if hasattr(module, "group"):
        return typer.main.get_command(module.group(_SETTINGS, LaunchCommand))
    return build_command(module.command, name, COMMANDS[name].text)


def build_command(command: Callable[..., Any], name: str, text: str) -> Any:
    """Return one command as typer runs it."""
    app = typer.Typer(**_SETTINGS)
    app.command(name, cls=LaunchCommand, help=text, context_settings=_CONTEXT)(grouped(command))
    return typer.main.get_command(app)


def option_variables() -> frozenset[str]:
    """Return the variables by which the options of all commands can be given."""
    commands = [_build(name) for name in COMMANDS]
    commands += [inner for group in commands for inner in getattr(group, "commands", {}).values()]
    return frozenset(parameter.envvar for command in commands for parameter in command.params if parameter.envvar)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        print(f"launch {version('model-launcher')}")  # noqa: T201 - before any command there is no output to ask
        raise typer.Exit


def _program(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Name a model: `launch` finds format, quantization, engine and files that suit this machine, and runs it."""


_CONTEXT = {"help_option_names": ["-h", "--help"], "token_normalize_func": lambda token: token.replace("_", "-")}
_SETTINGS: dict[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "add_completion": False,
    "context_settings": _CONTEXT,
}

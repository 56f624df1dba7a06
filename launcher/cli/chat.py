"""`launch chat NAME`: a conversation in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from engines.messages import Message
from launcher.cli import prompts
from launcher.cli.options import (
    Ask,
    Elsewhere,
    How,
    Name,
    Network,
    Pinned,
    Printing,
    Sharing,
    UsageError,
    Which,
    at_most_one_name,
    model_of,
    request_of,
)
from launcher.cli.running import attach_or_start, plan_of
from launcher.output import Output, is_terminal
from registry.errors import BusyError, ContextOverflowError, LaunchError

if TYPE_CHECKING:
    from engines.session import Session

HELP = "/system TEXT sets the system message · /clear forgets the conversation · /exit leaves · Ctrl-C stops an answer"


def command(
    context: typer.Context,
    which: Which,
    how: How,
    ask: Ask,
    elsewhere: Elsewhere,
    network: Network,
    pinned: Pinned,
    sharing: Sharing,
    printing: Printing,
    name: Name = None,
) -> None:
    from engines.session import Session
    from launcher.cli.elsewhere import connected

    output = printing.output()
    if output.as_json:
        raise UsageError("A conversation is not JSON", hint="launch NAME --prompt TEXT --json")
    if elsewhere.url is not None:
        with connected(context, elsewhere.url, at_most_one_name(name, which.model_name), output) as model:
            output.say(HELP)
            Conversation(model, output, ask).run()
        return
    request = request_of(which, how, network, pinned, engine_args=context.obj)
    if "locked" not in request:
        request.setdefault("concurrency", 1)
        request.setdefault("start", "fast")
    plan = plan_of(model_of(name, which, pinned), request)
    prompts.check(plan, ask)
    instance = attach_or_start(plan, output, sharing)
    try:
        output.say(HELP)
        session = Session(instance.process.address, instance.target)
        with instance.explaining():
            Conversation(session, output, ask).run()
    finally:
        instance.stop()


class Conversation:
    """What was said so far, and the loop that goes on with it."""

    def __init__(self, session: Session, output: Output, ask: Ask) -> None:
        self._session = session
        self._output = output
        self._sampling = ask.sampling()
        self._schema = ask.schema()
        self._system = prompts.read_text(ask.system) if ask.system else None
        self._noted: set[str] = set()
        self._said: list[Message] = []

    def run(self) -> None:
        """Read and answer until `/exit` or the end of the input."""
        if is_terminal(sys.stdin):
            import readline  # noqa: F401 - editing and history for `input`
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._obey(line):
                    return
            elif line:
                self._answer(line)

    def _read(self) -> str | None:
        try:
            return input("> " if is_terminal(sys.stdin) else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            self._output.say("\n/exit leaves")
            return ""

    def _obey(self, line: str) -> bool:
        """Do what a line that begins with `/` says; False ends the conversation."""
        word, _, rest = line.partition(" ")
        match word:
            case "/exit" | "/quit" | "/bye":
                return False
            case "/system":
                self._system = rest.strip() or None
                self._output.say("system message set" if self._system else "system message removed")
            case "/clear":
                self._said.clear()
                self._output.say("the conversation is forgotten")
            case _:
                self._output.say(HELP)
        return True

    def _answer(self, line: str) -> None:
        """Print an answer; what Ctrl-C leaves of it is remembered as said."""
        system: list[Message] = [{"role": "system", "content": self._system}] if self._system else []
        question: Message = {"role": "user", "content": line}
        talk = [*system, *self._said, question]
        text = ""
        try:
            with self._session.chat_stream(talk, json_schema=self._schema, **self._sampling) as stream:
                for chunk in stream:
                    text += chunk.text
                    self._output.think(chunk.reasoning)
                    self._output.write(chunk.text)
            prompts.say_notes(stream.result, self._output, self._noted)
        except KeyboardInterrupt:
            self._output.say("\nstopped")
        except ContextOverflowError as error:
            self._output.error(error)
            self._output.say("/clear forgets the conversation")
            return
        except LaunchError as error:
            if isinstance(error, BusyError) or (error.permanent and error.kind != "load"):
                self._output.error(error)
                return
            raise
        self._output.write("\n")
        self._said += [question, {"role": "assistant", "content": text}]

"""The commands by name, with other tools' names for them."""

from __future__ import annotations

from typing import NamedTuple

HIDDEN_DEFAULT = "launch"


class Entry(NamedTuple):
    """A command: where it is, and the line that stands in the list of commands."""

    module: str
    text: str
    is_hidden: bool = False


COMMANDS = {
    HIDDEN_DEFAULT: Entry("launch", "Resolve, fetch, start and serve one model here.", is_hidden=True),
    "chat": Entry("chat", "Talk to a model."),
    "serve": Entry("serve", "Serve the models of launch.yaml behind one endpoint."),
    "ps": Entry("ps", "Show what runs."),
    "logs": Entry("logs", "Show what an engine or a server said."),
    "stop": Entry("stop", "End what runs."),
    "restart": Entry("restart", "End a detached server and start it again."),
    "reload": Entry("reload", "Apply a server's changed file without dropping a request."),
    "list": Entry("list", "List the models of the catalogue."),
    "inspect": Entry("inspect", "Show a model's facts, specs, and what runs here."),
    "check": Entry("check", "Ask three fixed questions: speed, memory, pass or fail."),
    "pull": Entry("pull", "Fetch and verify a model's files; start nothing."),
    "lock": Entry("lock", "Write launch.lock: the files, engine and options of now."),
    "cache": Entry("cache", "List, verify and remove what was fetched."),
    "engines": Entry("engines", "List, install, update and remove engines."),
    "export": Entry("export", "Write what other programs start models from."),
    "env": Entry("env", "Print lines to eval, for clients of OpenAI and Anthropic."),
    "doctor": Entry("doctor", "Say what is wrong with this machine, and the remedy."),
}
ALIASES = {
    "run": "chat",
    "ls": "list",
    "show": "inspect",
    "engine": "inspect",
    "download": "pull",
    "registrations": "list",
    "terminate": "stop",
}
SHORTCUTS = {"rm": ("cache", "rm")}


def near_command(word: str) -> str | None:
    """Return the command that a word is nearly, or None."""
    from difflib import get_close_matches

    names = [name for name, entry in COMMANDS.items() if not entry.is_hidden]
    return next(iter(get_close_matches(word.lower(), names, n=1)), None)

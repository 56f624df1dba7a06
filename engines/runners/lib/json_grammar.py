"""Text that satisfies a JSON schema, by llguidance: which tokens may follow, whatever the model would like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from openai_backend import RequestError

# White space as in `json.dumps`: free white space lets a small model write nothing else until its tokens are spent.
SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Grammar:
    """One answer's place in its grammar."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allowed(self) -> bytes:
        """Return which tokens may follow, a bit for each, the lowest of a byte first.

        Where the text is complete these are those that end it.
        """
        return bytes(self._matcher.compute_bitmask())

    def accept(self, token: int) -> None:
        """Go on behind `token`, which was allowed."""
        self._matcher.consume_token(token)


class Grammars:
    """Makes the grammars of one model. `read_vocabulary` returns llguidance's view of its tokens.

    It is called when the first grammar is asked for, because it takes about a second.
    """

    def __init__(self, read_vocabulary: Callable[[], Any]) -> None:
        self._read_vocabulary = read_vocabulary
        self._vocabulary: Any = None

    def make(self, schema: Mapping[str, Any]) -> Grammar:
        """Return the grammar of a schema, at its beginning; raises RequestError where none can be made of it."""
        from llguidance import LLMatcher

        if self._vocabulary is None:
            self._vocabulary = self._read_vocabulary()
        source = LLMatcher.grammar_from_json_schema(dict(schema), overrides=SPACING)
        matcher = LLMatcher(self._vocabulary, source)
        if matcher.is_error():
            raise RequestError(f"the JSON schema cannot be used: {matcher.get_error()}", "response_format")
        return Grammar(matcher)

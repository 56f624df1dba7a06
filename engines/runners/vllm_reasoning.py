"""A reasoning parser for vLLM that knows a model's tags by what the catalogue says, whatever the model is called.

vLLM loads it as a plugin (`--reasoning-parser-plugin`). What comes before the end tag is reasoning, whether the model
wrote the start tag itself or its template did: a prompt that ends the reasoning already gives an answer without any.
"""

from __future__ import annotations

import bisect
import os
from collections.abc import Iterable, Sequence
from typing import Any

from vllm.entrypoints.generate.base.protocol import DeltaMessage
from vllm.reasoning import ReasoningParser, ReasoningParserManager

START = os.environ["LAUNCH_REASONING_START"]
END = os.environ["LAUNCH_REASONING_END"]
# Tags are a few tokens long; more than a tag's worth of the text's end is looked at.
TAIL_TOKENS = 32


def split(text: str) -> tuple[str, str]:
    """Return the reasoning and the answer of what a model wrote so far, without what may turn out to be a tag."""
    body = text.lstrip()
    if START and START.startswith(body):
        return "", ""
    body = body.removeprefix(START) if START else text
    reasoning, end, answer = body.partition(END)
    return (reasoning if end else _without_part_of_end(body)), answer


def _without_part_of_end(text: str) -> str:
    for length in range(min(len(END) - 1, len(text)), 0, -1):
        if text.endswith(END[:length]):
            return text[:-length]
    return text


@ReasoningParserManager.register_module("launch_tags")
class TaggedReasoning(ReasoningParser):  # type: ignore[misc]  # vLLM is not here when types are checked
    """Splits by text, so that tags may be of any number of tokens."""

    @property
    def reasoning_start_str(self) -> str | None:
        return START or None

    @property
    def reasoning_end_str(self) -> str | None:
        return END

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Return whether a prompt leaves no room for reasoning; earlier turns may have had some."""
        return self._decode(list(input_ids)[-TAIL_TOKENS:]).rstrip().endswith(END)

    def is_reasoning_end_streaming(self, input_ids: Sequence[int], delta_ids: Iterable[int]) -> bool:
        new = len(list(delta_ids))
        return END in self._decode(list(input_ids)[-(TAIL_TOKENS + new) :]) if new else False

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        counts = range(len(input_ids) + 1)
        return input_ids[bisect.bisect_left(counts, True, key=lambda count: END in self._decode(input_ids[:count])) :]

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """Return the tokens before the answer, the tags among them."""
        return len(token_ids) - len(self.extract_content_ids(list(token_ids)))

    def _decode(self, token_ids: list[int]) -> str:
        return str(self.model_tokenizer.decode(token_ids))

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        reasoning, answer = split(model_output)
        return reasoning or None, answer or None

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> DeltaMessage | None:
        (said_reasoning, said_answer), (reasoning, answer) = split(previous_text), split(current_text)
        new = {"reasoning": reasoning[len(said_reasoning) :], "content": answer[len(said_answer) :]}
        given = {name: text for name, text in new.items() if text}
        return DeltaMessage(**given) if given else None

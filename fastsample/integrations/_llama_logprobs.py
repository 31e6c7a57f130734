"""Log-probabilities in the responses of llama-cpp-python, of the draws that a completion made.

Depends on ``details.py``. The shapes are those of ``llama_cpp.CompletionLogprobs``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..details import Draw


class Teller:
    """Puts log-probabilities into what a completion responds."""

    def __init__(self, llm: Any, prompt: Any, draws: list[Draw]) -> None:
        self._llm, self._prompt, self._draws = llm, prompt, draws

    def whole(self, response: Any) -> Any:
        """Return a response with its log-probabilities."""
        count = response["usage"]["completion_tokens"]
        if not len(self._prompt):
            count -= 1  # `Llama` puts a token before such a text, and counts it
        response["choices"][0]["logprobs"] = self._logprobs(0, count)
        return response

    def chunks(self, responses: Iterator[Any]) -> Iterator[Any]:
        """Yield the responses of a stream with theirs; the last one has no text and none."""
        begin = 0
        for response in responses:
            choice = response["choices"][0]
            if choice["finish_reason"] is None:
                end = begin + self._length(begin, choice["text"])
                choice["logprobs"] = self._logprobs(begin, end)
                begin = end
            yield response

    def _length(self, begin: int, text: str) -> int:
        """Return of how many tokens a chunk is the text."""
        tokens = [draw.token for draw in self._draws[begin:]]
        for count in range(1, len(tokens) + 1):
            if self._llm.detokenize(tokens[:count]) == text.encode():
                return count
        return 1  # cut where a stop string begins, or within a character

    def _text(self, tokens: list[int], before: list[int]) -> str:
        return str(self._llm.detokenize(tokens, prev_tokens=before).decode(errors="ignore"))

    def _logprobs(self, begin: int, end: int) -> dict[str, list[Any]]:
        all_tokens = [draw.token for draw in self._draws[:end]]
        told: dict[str, list[Any]] = {
            "tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []
        }  # fmt: skip
        for at in range(begin, end):
            draw, before = self._draws[at], all_tokens[:at]
            if draw.token == self._llm.token_bos():
                continue
            token, tops = self._text([draw.token], before), dict[str, float]()
            if draw.top_ids is not None and draw.top_logprobs is not None:
                pairs = zip(draw.top_ids.tolist(), draw.top_logprobs.tolist(), strict=True)
                # Of several tokens of one text the last one counts, as in `Llama`. Where the model
                # gives fewer than were asked for, the others have the id -1.
                tops = {self._text([i], before): logprob for i, logprob in pairs if i >= 0}
            told["tokens"].append(token)
            told["text_offset"].append(len(self._prompt) + len(self._text(before, [])))
            told["token_logprobs"].append(draw.logprob)
            told["top_logprobs"].append(tops | {token: draw.logprob})
        return told

"""OpenAI's chat completions: the shape of a request, of an answer, of an error."""

from __future__ import annotations

import json
from typing import Any

from curation.stations.caption_models.answer import answer_schema
from curation.stations.caption_models.captioner import Question, Sampling, data_url, seed_of
from curation.stations.caption_models.prompts import Prompt
from curation.stations.caption_models.settings import EndpointConfig


class DeclinedError(Exception):
    """The server answered that it will not answer this one request.

    Args:
        reason: a key of `FAILURES`.
        detail: what it said.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def request_body(
    config: EndpointConfig, prompt: Prompt, sampling: Sampling, question: Question
) -> bytes:
    """The JSON that asks about one clip.

    Put together from pieces: a data address needs no escapes, and to look for some in the megabytes
    of a clip's pictures would take longer than all else about a request.
    """
    text = prompt.user_text(num_frames=len(question.frames), duration_s=question.duration_s)
    options: dict[str, Any] = {
        "model": config.model,
        config.token_limit_field: sampling.max_tokens,
        "temperature": sampling.temperature,
        "stream": False,
    }
    if sampling.temperature > 0:
        options["seed"] = seed_of(question.clip_id)
    if config.answer_format == "json_object":
        options["response_format"] = {"type": "json_object"}
    elif config.answer_format == "json_schema":
        schema = {"name": "clip", "strict": True, "schema": answer_schema()}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    system = json.dumps({"role": "system", "content": prompt.system})
    parts = [
        f'{{"type": "image_url", "image_url": {{"url": "{data_url(frame)}"}}}}'
        for frame in question.frames
    ]
    parts.append(json.dumps({"type": "text", "text": text}))
    user = f'{{"role": "user", "content": [{", ".join(parts)}]}}'
    return f'{{"messages": [{system}, {user}], {json.dumps(options)[1:]}'.encode("ascii")


class Tally:
    """Tokens of all tries for one clip; None until a server counts them."""

    def __init__(self) -> None:
        self.tokens_in: int | None = None
        self.tokens_out: int | None = None

    def add(self, usage: Any) -> None:
        """Count one completion's ``usage`` object."""
        if not isinstance(usage, dict):
            return
        tokens_in, tokens_out = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(tokens_in, int) and isinstance(tokens_out, int):
            self.tokens_in = (self.tokens_in or 0) + max(0, tokens_in)
            self.tokens_out = (self.tokens_out or 0) + max(0, tokens_out)


def message(completion: dict[str, Any], tally: Tally) -> tuple[str, bool]:
    """The model's words and whether it ended by itself.

    Raises:
        DeclinedError: there are none.
    """
    tally.add(completion.get("usage"))
    try:
        choice = completion["choices"][0]
        said, finish = choice["message"], choice.get("finish_reason")
        text, refusal = said.get("content"), said.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise DeclinedError("bad_reply", "no choices[0].message in the answer") from error
    if finish == "content_filter" or isinstance(refusal, str):
        raise DeclinedError("withheld", refusal if isinstance(refusal, str) else "content filter")
    if not isinstance(text, str):
        raise DeclinedError("bad_reply", "choices[0].message.content is no text")
    return text, finish != "length"


def error_text(data: bytes) -> str:
    """What an error says, in OpenAI's shape or in any other."""
    text = data.decode("utf-8", errors="replace")
    try:
        error = json.loads(text)["error"]
        words = [str(error[name]) for name in ("message", "code", "type") if error.get(name)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return text
    return "; ".join(words)

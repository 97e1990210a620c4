"""The JSON object that a prompt asks for, checked before a word of it is kept.

Models write text that strangers can steer (by what stands in a picture). So nothing is taken that
was not asked for: the object must have exactly these keys, each a string within its length.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

_FENCE = re.compile(r"\A```(?:json)?\s*\n(?P<inside>.*)\n\s*```\Z", re.DOTALL)
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")
"""Controls (category Cc), lone surrogates (Cs), and what turns the direction of writing."""
_MAX_ANSWER_CHARACTERS = 20_000  # five times what all fields may hold together


def cleaned(text: str | None) -> str:
    """Text on one line: NFC, without control and direction characters, single spaces."""
    normal = unicodedata.normalize("NFC", text or "")
    return _HIDDEN.sub("", re.sub(r"\s+", " ", normal)).strip()


def _cleaned_if_text(value: Any) -> Any:
    return cleaned(value) if isinstance(value, str) else value


def _text(least: int, most: int) -> Any:
    return Annotated[
        str,
        BeforeValidator(_cleaned_if_text),
        StringConstraints(strict=True, min_length=least, max_length=most),
    ]


class Answer(BaseModel):
    """What a model says of a clip; the limits are in characters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    short: _text(1, 300)  # type: ignore[valid-type]
    """One sentence of about ten words."""
    long: _text(1, 2000)  # type: ignore[valid-type]
    """A paragraph."""
    subject: _text(0, 300)  # type: ignore[valid-type]
    """The main person, animal or thing."""
    action: _text(0, 300)  # type: ignore[valid-type]
    """What it does."""
    setting: _text(0, 300)  # type: ignore[valid-type]
    """Where and when."""
    style: _text(0, 300)  # type: ignore[valid-type]
    """The look."""
    camera: _text(0, 300)  # type: ignore[valid-type]
    """Shot size and movement."""
    text_on_screen: _text(0, 1000)  # type: ignore[valid-type]
    """Text that can be read in the pictures."""


class AnswerError(ValueError):
    """The text is not the object that was asked for.

    Args:
        reason: 'bad_json' or 'bad_schema'.
        detail: what is wrong, without repeating the text.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def parse_answer(text: str) -> Answer:
    """The checked answer; a code fence around the object is taken off, nothing else is mended.

    Raises:
        AnswerError: it is no JSON, or not the object that was asked for.
    """
    if len(text) > _MAX_ANSWER_CHARACTERS:
        raise AnswerError("bad_schema", f"{len(text)} characters, over {_MAX_ANSWER_CHARACTERS}")
    bare = text.strip()
    fence = _FENCE.match(bare)
    try:
        content = json.loads(fence["inside"] if fence else bare)
    except (ValueError, RecursionError) as error:
        raise AnswerError("bad_json", str(error)) from error
    try:
        return Answer.model_validate(content)
    except ValidationError as error:
        # Input is left out: the model's words may be anything, and details are shown to people.
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        place = ".".join(str(step) for step in first["loc"])[:40] or "answer"
        raise AnswerError("bad_schema", f"{place}: {first['msg']}") from error


def answer_schema() -> dict[str, Any]:
    """JSON Schema of an answer, for servers that hold the model to one.

    Lengths are left out: not every server knows them, and `parse_answer` checks them anyway.
    """
    names = list(Answer.model_fields)
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": names,
        "additionalProperties": False,
    }

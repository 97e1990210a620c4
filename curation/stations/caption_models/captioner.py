"""A question about one clip, the reply to it, and what every engine is.

Question and reply carry the clip's id. Engines may answer in any order; `in_order` puts replies
back by id and refuses a set that does not match, so that no caption can land on another clip.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

FAILURES: dict[str, str] = {
    "unreachable": "no connection, or it broke, on every try",
    "timeout": "no whole answer within the clip's deadline",
    "rate_limited": "the server asked to wait on every try",
    "server_error": "the server failed (5xx) on every try",
    "rejected": "the server (4xx) or vLLM did not take the request: see the detail",
    "bad_reply": "what came back is no chat completion",
    "withheld": "the server or model declined to answer (content filter, refusal)",
    "cut_short": "the answer ran into the limit of tokens",
    "bad_json": "the answer is not the JSON object that was asked for",
    "bad_schema": "the answer is JSON with missing, foreign, empty or overlong fields",
}
"""Why a clip got no caption from a model: the word in `caption_reason` -> what it means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about one clip."""

    clip_id: str
    """Whose frames these are."""
    frames: tuple[bytes, ...]
    """JPEG or WebP pictures in the order of time, at least one."""
    duration_s: float
    """Length of the clip; 0 for a still image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back for one clip: a text, or the reason why there is none."""

    clip_id: str
    """Of the question."""
    text: str | None
    """The model's words, unchecked; None where `reason` says why."""
    is_whole: bool = True
    """Whether the model ended by itself, rather than at the limit of tokens."""
    tokens_in: int | None = None
    """Tokens of prompt and pictures, summed over all answered tries; None where unknown."""
    tokens_out: int | None = None
    """Tokens written, summed likewise."""
    reason: str | None = None
    """A key of `FAILURES`, or None."""
    detail: str | None = None
    """What was seen, for a person; never holds a key."""
    model_digest: str | None = None
    """What answered, where the engine learns it only with the answer."""


class Captioner(Protocol):
    """One engine."""

    def check(self) -> None:
        """Find out, before any work, whether the model can be asked; cheap, loads no weights.

        Raises:
            LavieError: it cannot; says what to do.
        """

    def setup(self) -> None:
        """Load what is needed to answer; heavy imports happen here."""

    def __call__(self, questions: Iterable[Question]) -> Iterable[Reply]:
        """Answer each question once, in any order; pictures of those not yet asked stay packed."""


def in_order(clip_ids: Sequence[str], replies: Iterable[Reply]) -> list[Reply]:
    """Replies in the order of the clips that were asked about.

    Raises:
        AssertionError: a reply is missing, foreign or double: a bug of the engine, never bad data.
    """
    found: dict[str, Reply] = {}
    for reply in replies:
        assert reply.clip_id not in found, f"two replies for clip {reply.clip_id}"
        found[reply.clip_id] = reply
    assert len(set(clip_ids)) == len(clip_ids), "a clip was asked about twice"
    assert found.keys() == set(clip_ids), f"{len(found)} replies for {len(clip_ids)} questions"
    return [found[clip_id] for clip_id in clip_ids]


def spread(frames: Sequence[bytes], most: int) -> tuple[bytes, ...]:
    """At most ``most`` frames, evenly over the clip: the middles of equal pieces."""
    if len(frames) <= most:
        return tuple(frames)
    return tuple(frames[(2 * i + 1) * len(frames) // (2 * most)] for i in range(most))


def data_url(picture: bytes) -> str:
    """A picture as a ``data:`` address, as OpenAI's image_url parts take it.

    Raises:
        ValueError: for anything else; the decoding pass writes nothing else.
    """
    if picture[:3] == b"\xff\xd8\xff":
        kind = "jpeg"
    elif picture[:4] == b"RIFF" and picture[8:12] == b"WEBP":
        kind = "webp"
    else:
        raise ValueError(f"a keyframe must be JPEG or WebP, got bytes that begin {picture[:12]!r}")
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is drawn; the same for all engines."""

    max_tokens: int
    """Most tokens of an answer."""
    temperature: float
    """0 takes the likeliest token each time."""


def seed_of(clip_id: str) -> int:
    """A seed for sampling, 0..2^31-1, the same for the same clip."""
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:4], "big") >> 1

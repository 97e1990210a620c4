"""The copy of one source, that a broken answer does not lose."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from curation.errors import BadSource
from curation.sources.web.answers import Answer, NoAnswer, content_range, validator


class Copy:
    """Bytes of a source, over several answers.

    Args:
        target: open for writing.
        max_bytes: more are refused.
    """

    def __init__(self, target: BinaryIO, max_bytes: int) -> None:
        self._target = target
        self._max_bytes = max_bytes
        self._restart()

    def _restart(self) -> None:
        self._target.seek(0)
        self._target.truncate()
        self._digest = hashlib.sha256()
        self._validator: str | None = None
        self._total: int | None = None
        self.received = 0
        """Bytes that are there."""

    def range_headers(self) -> dict[str, str]:
        """Headers that ask for what is missing, if the file is still the one that was begun."""
        if not self.received or self._validator is None:
            return {}
        return {"Range": f"bytes={self.received}-", "If-Range": self._validator}

    def begin(self, answer: Answer) -> None:
        """Take in the head of an answer.

        Raises:
            BadSource: it holds no source, or one that is too large.
            NoAnswer: it does not go on where the copy stopped: the next one begins anew.
        """
        if answer.status == 416 and self.received:
            self._restart()
            raise NoAnswer("the file has changed meanwhile")
        answer.check_holds_a_source()
        if answer.status == 206:
            if not self._goes_on(answer):
                self._restart()
                raise NoAnswer("it sent another piece than was asked for")
            return
        self._restart()
        self._validator, self._total = validator(answer), answer.length
        if self._total is not None:
            self._check(self._total)

    def _goes_on(self, answer: Answer) -> bool:
        """Whether a piece is the rest of what was begun, of the same version of the file."""
        span = content_range(answer.header("content-range"))
        if span is None or span[0] != self.received:
            return False
        versions = (answer.header("etag"), answer.header("last-modified"))
        is_same = self._validator in versions or versions == (None, None)
        return is_same and (None in (span[1], self._total) or span[1] == self._total)

    def add(self, block: bytes) -> None:
        """Append what came.

        Raises:
            BadSource: it is more than is allowed.
        """
        self.received += len(block)
        self._check(self.received)
        self._digest.update(block)
        self._target.write(block)

    def finish(self) -> None:
        """Check at the end of an answer that all is there.

        Raises:
            BadSource: there is nothing.
            NoAnswer: something is missing.
        """
        self._target.flush()
        if self._total is not None and self.received != self._total:
            raise NoAnswer(f"it sent {self.received} of {self._total} bytes")
        if not self.received:
            raise BadSource("empty", "0 bytes")

    def _check(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise BadSource(
                "too_large", f"{size_bytes} bytes and maybe more, the limit is {self._max_bytes}"
            )

    def sha256(self) -> str:
        """Digest of the bytes that are there."""
        return self._digest.hexdigest()

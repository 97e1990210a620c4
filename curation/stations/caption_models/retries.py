"""When to ask a server again, and how long to wait before.

Full jitter (a random wait up to a bound that doubles) keeps many clips from coming back at once;
Retry-After is honoured up to a cap, since servers have asked for ten days; one clip that is told to
wait holds all others of the worker back too, since the limit is the account's.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from tenacity import RetryCallState
from tenacity.wait import wait_base, wait_random, wait_random_exponential

PASSING_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""HTTP answers that may be another one next time; the last four are proxies' own."""


class PassingError(Exception):
    """A fault that may pass.

    Args:
        reason: a key of `FAILURES`.
        detail: what was seen.
        retry_after_s: the wait that the server asked for, if it did.
    """

    def __init__(self, reason: str, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail
        self.retry_after_s = retry_after_s


def retry_after_s(header: str | None, now: datetime | None = None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None where it is unusable.

    Args:
        header: seconds or an HTTP date.
        now: for dates; the clock by default.
    """
    if not header:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


class wait_as_asked(wait_base):  # noqa: N801 - named as tenacity names its waits
    """Random exponential, or what the server asked for plus a little jitter, under one cap."""

    def __init__(self, *, backoff_s: float, max_wait_s: float) -> None:
        self._random = wait_random_exponential(multiplier=backoff_s, max=max_wait_s)
        self._jitter = wait_random(0, backoff_s)
        self._max_wait_s = max_wait_s

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds to wait."""
        outcome = retry_state.outcome
        error = outcome.exception() if outcome is not None else None
        asked_s = error.retry_after_s if isinstance(error, PassingError) else None
        if asked_s is None:
            return float(self._random(retry_state))
        return float(min(asked_s, self._max_wait_s) + self._jitter(retry_state))


class Pause:
    """A wait that all requests of one worker share."""

    def __init__(self, max_wait_s: float) -> None:
        self._until_s = 0.0
        self._max_wait_s = max_wait_s

    def ask(self, seconds: float) -> None:
        """Let nobody send for so long, at most the cap."""
        now_s = asyncio.get_running_loop().time()
        self._until_s = max(self._until_s, now_s + min(seconds, self._max_wait_s))

    async def over(self) -> None:
        """Wait until it is over."""
        while (left_s := self._until_s - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(left_s)

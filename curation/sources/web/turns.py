"""Whose turn it is at a host: how many ask at a time, and how soon after each other."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

LEASE_S = 60.0
"""Seconds after which a turn is over whose holder has not been heard of: it has died."""
FULL_S = 1.0
"""Seconds to wait before asking again for a turn at a host where all are taken."""
MAX_HOSTS = 10_000
"""Hosts that are remembered; of more, those that nobody waits for are forgotten."""


class Turns(Protocol):
    """Turns at hosts, of all that ask in one run."""

    def wait_s(self, host: str, holder: str, *, delay_s: float, most: int) -> float:
        """Ask for a turn.

        Args:
            host: with its port.
            holder: who asks.
            delay_s: from one turn's begin to the next.
            most: turns at a time.

        Returns:
            0 if it is given; else the seconds to wait before asking again.
        """

    def keep(self, host: str, holder: str) -> None:
        """Say that a turn is still needed."""

    def end(self, host: str, holder: str, *, pause_s: float = 0.0) -> None:
        """Give a turn back; with a pause, nobody gets one at this host for so long."""


@dataclass(slots=True)
class _Host:
    next_at: float = 0.0
    holders: dict[str, float] = field(default_factory=dict)
    """Who has a turn -> when it is over unless it is kept."""


class HostTurns:
    """Turns of one process, or of all that ask one.

    Args:
        now: seconds on a clock that never goes back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._hosts: dict[str, _Host] = {}

    def wait_s(self, host: str, holder: str, *, delay_s: float, most: int) -> float:
        """As `Turns.wait_s`."""
        now, place = self._now(), self._host(host)
        place.holders = {one: ends for one, ends in place.holders.items() if ends > now}
        if place.next_at > now:
            return place.next_at - now
        if len(place.holders) >= most and holder not in place.holders:
            return FULL_S
        place.holders[holder] = now + LEASE_S
        place.next_at = now + delay_s
        return 0.0

    def keep(self, host: str, holder: str) -> None:
        """As `Turns.keep`."""
        self._host(host).holders[holder] = self._now() + LEASE_S

    def end(self, host: str, holder: str, *, pause_s: float = 0.0) -> None:
        """As `Turns.end`."""
        place = self._host(host)
        place.holders.pop(holder, None)
        place.next_at = max(place.next_at, self._now() + pause_s)

    def _host(self, host: str) -> _Host:
        if host not in self._hosts and len(self._hosts) >= MAX_HOSTS:
            now = self._now()
            self._hosts = {
                name: one for name, one in self._hosts.items() if one.holders or one.next_at > now
            }
        return self._hosts.setdefault(host, _Host())

"""Says what is waited for: a store that does not answer may be silent for minutes."""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections.abc import Iterator

logger = logging.getLogger(__name__)

FIRST_S, AGAIN_S = 10.0, 60.0
"""Seconds after which a person is told, and told again."""


class _Watch:
    """A thread that looks at what is waited for, once there is anything."""

    def __init__(self) -> None:
        self._awaited: dict[int, tuple[str, float]] = {}
        self._told: dict[int, float] = {}
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def begin(self, what: str) -> int:
        with self._changed:
            number = next(self._numbers)
            self._awaited[number] = what, time.monotonic()
            if self._thread is None or not self._thread.is_alive():  # as after a fork
                self._thread = threading.Thread(target=self._look, daemon=True, name="waiting")
                self._thread.start()
            elif len(self._awaited) == 1:
                self._changed.notify()
        return number

    def end(self, number: int) -> None:
        with self._changed:
            self._awaited.pop(number, None)
            self._told.pop(number, None)

    def _look(self) -> None:
        while True:
            with self._changed:
                while not self._awaited:
                    self._changed.wait()
                late = list(self._late(time.monotonic()))
            for what, since_s in late:
                logger.warning("waiting for %s to answer, %.0f s so far", what, since_s)
            time.sleep(FIRST_S / 20)

    def _late(self, now: float) -> Iterator[tuple[str, float]]:
        for number, (what, began) in self._awaited.items():
            if now >= self._told.get(number, began + FIRST_S):
                self._told[number] = now + AGAIN_S
                yield what, now - began


_watch = _Watch()


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """A context that may take long because somebody else has to answer: one line in the log tells.

    Args:
        what: who, fit for a person: without secrets.
    """
    number = _watch.begin(what)
    try:
        yield
    finally:
        _watch.end(number)

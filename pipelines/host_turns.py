"""Turns at web hosts over all workers of a run: one small actor beside the driver counts them.

What holds: over one run, no host gets more requests at a time, or sooner after each other, than the
settings and its robots.txt say; a worker that dies loses its turn after a minute. Another run counts for
itself. If the actor is lost with its machine it begins anew, and for the turns that are out just then a
host may get as many once more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import ray

from curation.sources import HostTurns

NAME = "lavie-host-turns"
"""Of the actor, in the namespace of the run's job."""


class RayTurns:
    """Turns that all workers of a run share; travels to them by its name."""

    def __init__(self) -> None:
        self._actor: Any = None

    def __reduce__(self) -> tuple[type[RayTurns], tuple[()]]:
        return RayTurns, ()

    def wait_s(self, host: str, holder: str, *, delay_s: float, most: int) -> float:
        """As `curation.sources.Turns.wait_s`."""
        return float(self._ask("wait_s", host, holder, delay_s=delay_s, most=most))

    def keep(self, host: str, holder: str) -> None:
        """As `curation.sources.Turns.keep`."""
        self._ask("keep", host, holder)

    def end(self, host: str, holder: str, *, pause_s: float = 0.0) -> None:
        """As `curation.sources.Turns.end`."""
        self._ask("end", host, holder, pause_s=pause_s)

    def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        if self._actor is None:
            self._actor = ray.get_actor(NAME)
        return ray.get(getattr(self._actor, method).remote(*arguments, **named))


@contextlib.contextmanager
def shared_turns(wanted: bool) -> Iterator[None]:
    """The actor that `RayTurns` asks, for as long as the context lasts; Ray must have been started.

    Args:
        wanted: whether there is anything to ask web servers for.
    """
    if not wanted:
        yield
        return
    # No cores: it waits for messages. Restarts are not bounded, for a run lasts for weeks; what was asked
    # meanwhile is asked again, which changes nothing.
    asked: Any = ray.remote(HostTurns)
    lives_on = {"max_restarts": -1, "max_task_retries": -1}
    actor = asked.options(name=NAME, num_cpus=0, **lives_on).remote()
    ray.get(actor.end.remote("", ""))  # it has started
    try:
        yield
    finally:
        ray.kill(actor)

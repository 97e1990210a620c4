"""The driver writes down what its workers have committed, and what that makes outdated."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from curation.corpus import layout
from curation.corpus.ledger import Commit, Ledger, PartState
from curation.corpus.store import Store
from curation.errors import TornPart
from curation.stations.station import Station
from pipelines import river

logger = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 5.0  # what a killed run has put in this time is read again by the next one


class Recorder:
    """Takes commits into the ledger; a context manager around a run.

    A part that comes out with other bytes than it had makes those outdated that were made of it: they
    are marked before the part itself goes on record, so that no kill can leave them behind.

    Args:
        ledger: of the corpus.
        downstream: folder -> folders whose parts are made of its parts of the same number.
    """

    def __init__(self, ledger: Ledger, downstream: Mapping[str, Sequence[str]]) -> None:
        self._ledger = ledger
        self._downstream = downstream
        self._flushed = time.monotonic()
        self.outdated: set[tuple[str, int]] = set()
        """Folder and part of what was marked so and has not been made anew since."""

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ledger.flush()

    def __call__(self, commits: Sequence[Commit]) -> None:
        """A worker has put these parts."""
        for commit in commits:
            self.outdated.discard((commit.folder, commit.part))
            if self._ledger.differs(commit):
                for folder in self._downstream.get(commit.folder, ()):
                    marked = self._ledger.mark_again(folder, [commit.part])
                    self.outdated.update((folder, part) for part in marked)
        self._ledger.record(commits)
        if time.monotonic() - self._flushed >= FLUSH_INTERVAL_S:
            self._ledger.flush()
            self._flushed = time.monotonic()


def downstream(stations: Sequence[Station[Any]], ids: Mapping[str, str]) -> dict[str, list[str]]:
    """Folder of each layer -> folders of the layers that a station of this run makes of it."""
    found: dict[str, list[str]] = {layout.layer_folder(ids[name]): [] for name in ids}
    for station in stations:
        for name in river.upstream(station):
            found[layout.layer_folder(ids[name])].append(layout.layer_folder(ids[station.name]))
    return found


def committed(ledger: Ledger, folder: str, num_parts: int) -> frozenset[int]:
    """Parts of a folder that need no work, unrecorded ones taken into the record first."""
    states = ledger.reconcile(folder, num_parts)
    damaged = [part for part, state in enumerate(states) if state is PartState.DAMAGED]
    if damaged:
        logger.warning(
            "%s/%s: %d parts are not as they were written and are made anew, the first is %s",
            *(ledger.store.root, folder, len(damaged), layout.part_file(damaged[0])),
        )
    return frozenset(part for part, state in enumerate(states) if state is PartState.DONE)


def check_sources_are_there(ledger: Ledger, num_parts: int) -> None:
    """Stop where a part of the sources is gone or damaged: nothing can make it anew.

    Raises:
        TornPart: naming the first.
    """
    states = ledger.reconcile(layout.SOURCES, num_parts)
    lost = [part for part, state in enumerate(states) if state is not PartState.DONE]
    if lost:
        store: Store = ledger.store
        raise TornPart(
            f"{len(lost)} parts of the list of sources are not what was written, the first is "
            f"{store.root}/{layout.sources(lost[0])} ({states[lost[0]]}): put it back from a copy, or "
            "curate into a new corpus"
        )

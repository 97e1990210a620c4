"""Which source of a part ends its worker: found by decoding one after another, with each written down first.

A part that failed once is decoded carefully: before each source, `suspects/part-N.json` is told which one
is in hand. When the worker dies or raises, the driver counts that against the source in hand, never
against its neighbours; a source that ended `MAX_ENDED` careful tries is left out with the reason
`quarantined`, and the rest of the part goes on. A fault or loss of the machine is counted against nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from curation.corpus import layout
from curation.corpus.manifest import sealed, unsealed
from curation.corpus.store import Store

MAX_ENDED = 2
"""Careful tries that one source may end."""
MAX_SUSPECTS = 4
"""With more sources of one part to blame, it is not the sources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """What is known of the sources of one part that was tried carefully."""

    in_hand: int | None = None
    """Row of the source that is being decoded."""
    ended: Mapping[int, int] = field(default_factory=dict)
    """Row -> careful tries that it ended."""
    why: Mapping[int, str] = field(default_factory=dict)
    """Row -> what ended the last of them."""

    @property
    def quarantined(self) -> dict[int, str]:
        """Rows that are left out, and why."""
        return {row: self.why[row] for row, times in self.ended.items() if times >= MAX_ENDED}


def read_suspects(store: Store, part: int) -> Suspects:
    """What is known of a part; of nobody where it was never tried carefully.

    Raises:
        TornPart: if the file is damaged.
    """
    name = layout.suspects(part)
    try:
        content = unsealed(store.read(name), f"{store.root}/{name}")
    except FileNotFoundError:
        return Suspects()
    return Suspects(
        in_hand=content["in_hand"],
        ended={int(row): times for row, times in content["ended"].items()},
        why={int(row): why for row, why in content["why"].items()},
    )


def write_suspects(store: Store, part: int, suspects: Suspects) -> None:
    """Put what is known of a part, over what was."""
    content = {
        "in_hand": suspects.in_hand,
        "ended": {str(row): times for row, times in suspects.ended.items()},
        "why": {str(row): why for row, why in suspects.why.items()},
    }
    store.write(layout.suspects(part), sealed(content))


def forget_suspects(store: Store, part: int) -> None:
    """The part is committed: what is known of its sources is in their rows."""
    store.delete(layout.suspects(part))


def blame_in_hand(store: Store) -> Callable[[int, str], bool]:
    """What the driver asks when a careful try has failed: whether a source was found that is to blame."""

    def blame(part: int, why: str) -> bool:
        known = read_suspects(store, part)
        row = known.in_hand
        if row is None:
            return False
        ended = {**known.ended, row: known.ended.get(row, 0) + 1}
        write_suspects(store, part, Suspects(ended=ended, why={**known.why, row: why}))
        return len(ended) <= MAX_SUSPECTS

    return blame

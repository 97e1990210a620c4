"""Parts that lack a layer: whoever reads clips leaves them out, and names them.

A part is complete when every layer that corpus.json names has it. A run whose unit failed for good leaves
parts that are not; so does one that was killed. What can be read is the rest, and this is the only place
that says which parts that are. A file that was on record and is gone, or has other bytes, is no gap but
damage: its readers say so.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from curation.corpus import layout
from curation.corpus.ledger import Ledger, PartState
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import read_table
from curation.errors import CorpusError

NAMED = 8
"""Parts that a sentence names."""
MISSING = "missing"
"""Entry of rules.json; only there where parts were left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LackingPart:
    """A part that is not complete."""

    part: int
    """Its number."""
    num_sources: int
    """Sources that were dealt into it."""
    layers: tuple[str, ...]
    """Names of the layers that lack it, in river order."""


@dataclass(frozen=True, slots=True)
class Gap:
    """All parts of a corpus that are not complete; false where there are none.

    Args:
        parts: by their numbers.
        num_parts: of the corpus, complete ones included.
    """

    parts: tuple[LackingPart, ...]
    num_parts: int

    def __bool__(self) -> bool:
        return bool(self.parts)

    @property
    def numbers(self) -> frozenset[int]:
        """Numbers of these parts."""
        return frozenset(part.part for part in self.parts)

    @property
    def complete(self) -> list[int]:
        """Numbers of all other parts, rising."""
        left_out = self.numbers
        return [part for part in range(self.num_parts) if part not in left_out]

    def to_json(self) -> dict[str, Any]:
        """What rules.json says of it: one entry, or nothing."""
        parts = [{**asdict(part), "layers": list(part.layers)} for part in self.parts]
        return {MISSING: parts} if parts else {}

    @classmethod
    def of_selection(cls, rules: Mapping[str, Any]) -> Gap:
        """The parts that a selection has left out.

        Args:
            rules: contents of its rules.json.
        """
        parts = (
            LackingPart(**{**part, "layers": tuple(part["layers"])})
            for part in rules.get(MISSING, ())
        )
        return cls(tuple(parts), int(rules["num_parts"]))

    def __str__(self) -> str:
        num_sources = sum(part.num_sources for part in self.parts)
        by_layers: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for part in self.parts:
            by_layers[part.layers].append(part.part)
        which = "; ".join(
            f"{_named(numbers)} without {', '.join(layers)}"
            for layers, numbers in by_layers.items()
        )
        return f"{len(self.parts)} of {self.num_parts} parts ({num_sources:,} sources): {which}"


def _named(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")
    return f"part {shown}" if len(numbers) == 1 else f"parts {shown}"


def find_gap(ledger: Ledger, info: CorpusInfo) -> Gap:
    """The parts that some current layer lacks, by listings and records; no part is read.

    Args:
        ledger: of the corpus.
        info: its contents.
    """
    folders = [layout.layer_folder(layer_id) for layer_id in info.layers.values()]
    ledger.look(folders)
    return gap_of(ledger, info, {f: ledger.states(f, info.num_parts) for f in folders})


def gap_of(ledger: Ledger, info: CorpusInfo, states: Mapping[str, Sequence[PartState]]) -> Gap:
    """As `find_gap`, for whoever has the states already.

    Args:
        ledger: of the corpus.
        info: its contents.
        states: folder of each current layer -> how its parts stand.
    """
    lacking: dict[int, list[str]] = defaultdict(list)
    for name, layer_id in info.layers.items():
        folder = layout.layer_folder(layer_id)
        records = ledger.records(folder)
        for part, state in enumerate(states[folder]):
            was_never_made = state is PartState.MISSING and part not in records
            if was_never_made or state is PartState.AGAIN:
                lacking[part].append(name)
    found = [
        LackingPart(part=part, num_sources=_num_sources(ledger, part), layers=tuple(names))
        for part, names in sorted(lacking.items())
    ]
    return Gap(tuple(found), info.num_parts)


def _num_sources(ledger: Ledger, part: int) -> int:
    record = ledger.records(layout.SOURCES).get(part)
    if record is not None:
        return record.num_rows
    try:
        return read_table(ledger.store, layout.sources(part), ["uri"]).num_rows
    except CorpusError:  # who reads the list of sources says so
        return 0

"""A part is made anew in part: only rows that must be, between rows that stay byte for byte.

Three things ask for it: captions that failed, sources that were rejected for a reason that may pass,
and texts of known sources that a later list changes. What is to be made anew is written down first
(`again/part-N.json`), then the parts concerned are marked in the ledger. A job that meets such a part
makes the rows named there and takes the others over from the part as it is. The note is deleted when
every layer has followed; until then a plain run goes on with it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curation.corpus import layout
from curation.corpus.manifest import sealed, unsealed
from curation.corpus.parts import read_table
from curation.corpus.store import Store

Rows = NDArray[np.bool_]
"""Which rows of a table, one value a row."""
Clip = tuple[int, int]
"""A clip of a part: row of its source, and place of the scene in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What of one part is to be made anew."""

    sources: tuple[int, ...] = ()
    """Rows of sources to decode again."""
    fresh: tuple[tuple[int, ...], ...] = ()
    """Rows of sources that were decoded again with success, one batch a time that it was done: layers
    that have not followed lack the clips of the last of them, or of more."""
    clips: Mapping[str, tuple[Clip, ...]] = field(default_factory=dict)
    """Layer -> clips whose rows in it are to be made anew."""

    def merged(self, other: Again) -> Again:
        """Both at once; the other one came later."""
        names = sorted({*self.clips, *other.clips})
        return Again(
            sources=tuple(sorted({*self.sources, *other.sources})),
            fresh=(*self.fresh, *other.fresh),
            clips={
                name: tuple(sorted({*self.clips.get(name, ()), *other.clips.get(name, ())}))
                for name in names
            },
        )

    def decoded(self, num_scenes: Sequence[int]) -> Again:
        """After the sources were decoded: those that gave scenes are fresh.

        Args:
            num_scenes: of each source of the part.
        """
        batch = tuple(row for row in self.sources if num_scenes[row])
        return Again(fresh=(*self.fresh, batch) if batch else self.fresh, clips=self.clips)


def noted_parts(store: Store) -> frozenset[int]:
    """Parts of which there is a note."""
    numbers = (layout.part_number(name) for name in store.files(layout.AGAIN))
    return frozenset(number for number in numbers if number is not None)


def read_again(store: Store, part: int) -> Again | None:
    """The note of one part; None where there is none.

    Raises:
        TornPart: if its bytes are damaged.
    """
    name = layout.again(part)
    try:
        content = unsealed(store.read(name), f"{store.root}/{name}")
    except FileNotFoundError:
        return None
    return Again(
        sources=tuple(content["sources"]),
        fresh=tuple(map(tuple, content["fresh"])),
        clips={layer: tuple(map(tuple, clips)) for layer, clips in content["clips"].items()},
    )


def write_again(store: Store, part: int, again: Again) -> None:
    """Put the note of one part, over the one before."""
    content: dict[str, Any] = {
        "sources": list(again.sources),
        "fresh": [list(batch) for batch in again.fresh],
        "clips": {layer: [list(clip) for clip in clips] for layer, clips in again.clips.items()},
    }
    store.write(layout.again(part), sealed(content))


def add_again(store: Store, notes: Mapping[int, Again]) -> None:
    """Put notes of some parts, in addition to what an unfinished run has left."""
    for part, again in sorted(notes.items()):
        before = read_again(store, part)
        write_again(store, part, again if before is None else before.merged(again))


def forget(store: Store, parts: Container[int]) -> None:
    """Delete the notes of parts in which every layer has followed."""
    for part in noted_parts(store):
        if part in parts:
            store.delete(layout.again(part))


def read_places(store: Store, layers: Mapping[str, str], part: int) -> pa.Table:
    """`clip_id`, `source_row` and `scene_index` of the clips of one part."""
    columns = ["clip_id", "source_row", "scene_index"]
    return read_table(store, layout.layer(layers["scenes"], part), columns)


def rows_there(before: pa.ChunkedArray, places: pa.Table, again: Again) -> Rows | None:
    """Which clips of a part a layer has rows for already.

    Args:
        before: `clip_id` of the layer's rows.
        places: of the part, as `read_places`.
        again: of the part.

    Returns:
        One value a clip; None if the rows are those of other clips.
    """
    source_row = places["source_row"].to_numpy()
    for followed in range(len(again.fresh), -1, -1):
        late = [row for batch in again.fresh[followed:] for row in batch]
        there: Rows = ~np.isin(source_row, late)
        if places["clip_id"].filter(pa.array(there)).equals(before):
            return there
    return None


def rows_of(clips: Sequence[Clip], places: pa.Table) -> Rows:
    """Which clips of a part are among ``clips``."""
    wanted = set(clips)
    pairs = zip(places["source_row"].to_pylist(), places["scene_index"].to_pylist(), strict=True)
    return np.fromiter((pair in wanted for pair in pairs), bool, places.num_rows)


def spliced(before: pa.Table, there: Rows, made: pa.Table, anew: Rows) -> pa.Table:
    """A layer's rows in the order of the clips: those made anew between those that stay.

    Args:
        before: the layer as it is.
        there: ``[N]`` which clips it has rows for.
        made: rows of the clips that were made anew, in order.
        anew: ``[N]`` which clips those are; every clip that is not there is among them.
    """
    order = np.full(len(there), -1, np.int64)
    order[there] = np.arange(before.num_rows)
    order[anew] = before.num_rows + np.arange(made.num_rows)
    assert (order >= 0).all(), "every clip is there or made anew"
    both = pa.concat_tables([before.cast(made.schema), made])
    return both.take(pa.array(order)).combine_chunks()


def decoded_again(
    before: Mapping[str, pa.Table], made: Mapping[str, pa.Table], rows: Sequence[int]
) -> dict[str, pa.Table]:
    """The three decoded layers with the rows of some sources replaced.

    Args:
        before: "probe", "scenes", "keyframes" as they are; a run that was killed may have left
            `keyframes` without the rows that `scenes` has of these sources.
        made: the same of the sources at ``rows`` alone.
        rows: rows of these sources in the part, rising.

    Returns:
        The three tables; an empty dict if the keyframes line up with the scenes in neither way.
    """
    scenes, keyframes = before["scenes"], before["keyframes"]
    stays: Rows = ~np.isin(scenes["source_row"].to_numpy(), rows)
    kept = scenes.filter(pa.array(stays))
    if keyframes["clip_id"].equals(scenes["clip_id"]):
        keyframes = keyframes.filter(pa.array(stays))
    elif not keyframes["clip_id"].equals(kept["clip_id"]):
        return {}
    of_source = np.asarray(rows, np.int32)[made["scenes"]["source_row"].to_numpy()]
    place = scenes.schema.get_field_index("source_row")
    own = made["scenes"].cast(scenes.schema)
    own = own.set_column(place, scenes.schema.field(place), pa.array(of_source, pa.int32()))
    order = np.argsort(np.concatenate([kept["source_row"].to_numpy(), of_source]), kind="stable")
    replaced = np.arange(before["probe"].num_rows)
    replaced[np.asarray(rows, np.int64)] = before["probe"].num_rows + np.arange(len(rows))
    found = {
        "probe": _taken(before["probe"], made["probe"], replaced),
        "scenes": _taken(kept, own, order),
        "keyframes": _taken(keyframes, made["keyframes"], order),
    }
    return found


def _taken(first: pa.Table, second: pa.Table, order: NDArray[np.int64]) -> pa.Table:
    both = pa.concat_tables([first, second.cast(first.schema)])
    return both.take(pa.array(order)).combine_chunks()

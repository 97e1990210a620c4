"""Which exported samples tell of their clips what is no longer so.

Texts of known sources change: a later list gives licences or captions, captions that failed are asked
again. The layers follow, row by row; samples hold a copy. To look at all of them each time would be to
read the corpus, so `shards/<selection>/facts.json` has, for each part, a digest of the files that facts
are read from, as they were when the part's samples were last found to tell the truth. Of other parts the
clips are compared with the digests in the index, and a sample's own .json is read only where these
differ: it may be of a twin (the same bytes under another name), or of a version that wrote no digests.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus import layout
from curation.corpus.clip_ids import id_keys
from curation.corpus.generations import by_export, read_plans, read_shard
from curation.corpus.ledger import Ledger
from curation.corpus.manifest import CorpusInfo, sealed, unsealed
from curation.corpus.parts import in_order, open_parquet, read_clips
from curation.corpus.schema import LAYER_OF
from curation.corpus.shards import with_growth
from curation.corpus.store import Store
from curation.errors import TornPart
from curation.export.facts import Facts, clip_columns, facts_digest, says

logger = logging.getLogger(__name__)

THREADS = 8
"""Parts, and shards, that are read at the same time."""
_INDEX_COLUMNS = ("clip_id", "shard", "facts_digest")


def facts_of_parts(store: Store, info: CorpusInfo, parts: Sequence[int]) -> dict[int, str]:
    """Part -> digest of all files that the facts of its clips are read from, by the corpus's ledger.

    Parts of which a file is on no record are left out: nobody knows whether they changed.

    Args:
        store: the corpus.
        info: its contents.
        parts: numbers of those that are asked for.
    """
    read = dict.fromkeys(LAYER_OF[name] for name in clip_columns(info.layers))
    folders = [
        layout.SOURCES if name == "sources" else layout.layer_folder(info.layers[name])
        for name in read
    ]
    ledger = Ledger(store)
    records = {folder: ledger.records(folder) for folder in folders}
    found = {}
    for part in parts:
        own = [records[folder].get(part) for folder in folders]
        known = [record.sha256 for record in own if record is not None and not record.again]
        if len(known) == len(folders):
            lines = "\n".join(map(" ".join, zip(folders, known, strict=True)))
            found[part] = hashlib.sha256(lines.encode()).hexdigest()
    return found


def read_record(store: Store, selection: str) -> dict[int, str]:
    """The parts of facts.json; empty where there is none, or a damaged one: then all are compared."""
    name = layout.shard_facts(selection)
    try:
        content = unsealed(store.read(name), f"{store.root}/{name}")
    except FileNotFoundError:
        return {}
    except TornPart as error:
        logger.warning("%s: the samples of all parts are compared", error)
        return {}
    return {int(part): digest for part, digest in content["parts"].items()}


def write_record(store: Store, selection: str, parts: Mapping[int, str]) -> None:
    """Put on record that all samples tell of their clips what these states of the parts say."""
    if parts != read_record(store, selection):
        content = {"parts": {f"{part:05d}": digest for part, digest in parts.items()}}
        store.write(layout.shard_facts(selection), sealed(content))


@dataclass(frozen=True, slots=True)
class FactsOfToday:
    """What exported clips of some parts know about themselves, to be laid beside their samples.

    24 bytes a clip, so that those of 25 million fit on a laptop.
    """

    store: Store
    info: CorpusInfo
    selection: str
    keys: NDArray[np.uint64]
    """Of the clip ids, rising; a clip listed under two names is there twice."""
    digests: NDArray[np.int64]
    """Of their facts."""
    parts: NDArray[np.int32]
    rows: NDArray[np.int32]

    @classmethod
    def read(cls, store: Store, info: CorpusInfo, selection: str, parts: list[int]) -> FactsOfToday:
        """Read the clips of some parts that shards hold; the shards must be finished.

        Raises:
            CorpusError: if a part is missing or damaged.
        """
        exported = _exported_keys(store, selection) if parts else np.empty(0, np.uint64)

        def of_part(part: int) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int32]]:
            keys = id_keys(read_clips(store, info.layers, part, [])["clip_id"])
            rows = np.flatnonzero(_is_among(keys, exported)).astype(np.int32)
            clips = _clips(store, info, part, rows) if len(rows) else []
            return keys[rows], np.array([facts_digest(clip) for clip in clips], np.int64), rows

        found = list(in_order(of_part, parts, threads=THREADS))
        keys = np.concatenate([np.empty(0, np.uint64), *(own[0] for _, own in found)])
        order = np.argsort(keys, kind="stable")
        numbers = [np.full(len(own[0]), part, np.int32) for part, own in found]
        return cls(
            store=store,
            info=info,
            selection=selection,
            keys=keys[order],
            digests=np.concatenate([np.empty(0, np.int64), *(own[1] for _, own in found)])[order],
            parts=np.concatenate([np.empty(0, np.int32), *numbers])[order],
            rows=np.concatenate([np.empty(0, np.int32), *(own[2] for _, own in found)])[order],
        )

    def outdated_shards(self) -> list[tuple[str, int]]:
        """Bucket and number of the shards with a sample that tells something else."""
        suspects: set[str] = set()
        for index in _index_groups(self.store, self.selection) if len(self.keys) else ():
            differs = pa.array(self._differs(index))
            suspects.update(pc.unique(index["shard"].filter(differs)).to_pylist())
        names = [_parsed(name) for name in sorted(suspects)]
        generations = by_export(read_plans(self.store, self.selection))

        def is_outdated(place: int) -> bool:
            shard = read_shard(self.store, self.selection, names[place], generations)
            return next(self.outdated(shard.rows), None) is not None

        answers = in_order(is_outdated, range(len(names)), threads=THREADS)
        return [names[place] for place, answer in answers if answer]

    def outdated(self, rows: pa.Table) -> Iterator[tuple[int, Facts]]:
        """Place of each sample of a shard that tells something else, and what is so today.

        Args:
            rows: of the shard.
        """
        places = np.flatnonzero(self._differs(rows))
        if not len(places):
            return
        clips = self._clips_of(id_keys(rows["clip_id"].take(pa.array(places))))
        for place in places.tolist():
            row = rows.slice(place, 1).to_pylist()[0]
            sample = json.loads(
                self.store.read_range(
                    f"{layout.shards(self.selection)}/{row['shard']}",
                    offset=row["json_offset"],
                    size_bytes=row["json_size"],
                )
            )
            clip = clips.get((row["clip_id"], sample["uri"]))
            if clip is not None and not says(sample, clip):
                yield place, clip

    def _differs(self, rows: pa.Table) -> NDArray[np.bool_]:
        """Rows of samples whose clips are here, each with another digest than its sample has."""
        keys = id_keys(rows["clip_id"])
        begin = np.searchsorted(self.keys, keys, side="left")
        number = np.searchsorted(self.keys, keys, side="right") - begin
        is_cut = pc.is_valid(rows["shard"]).to_numpy()
        digests = rows["facts_digest"].fill_null(0).to_numpy()
        has_digest = pc.is_valid(rows["facts_digest"]).to_numpy()
        differs = (number > 0) & is_cut
        for place in np.flatnonzero(differs & has_digest).tolist():
            own = self.digests[begin[place] : begin[place] + number[place]]
            differs[place] = digests[place] not in own
        return differs

    def _clips_of(self, keys: NDArray[np.uint64]) -> dict[tuple[str, str], Facts]:
        """Clip id and address of the source -> the clip."""
        places = np.flatnonzero(_is_among(self.keys, np.unique(keys)))
        found: dict[tuple[str, str], Facts] = {}
        for part in np.unique(self.parts[places]).tolist():
            rows = np.sort(self.rows[places[self.parts[places] == part]])
            for clip in _clips(self.store, self.info, part, rows):
                found[clip["clip_id"], clip["uri"]] = clip
        return found


def _clips(
    store: Store, info: CorpusInfo, part: int, rows: NDArray[np.int32]
) -> list[dict[str, Any]]:
    table = read_clips(store, info.layers, part, clip_columns(info.layers), rows=rows)
    return table.to_pylist()


def _is_among(keys: NDArray[np.uint64], some: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which keys are among ``some``, which rise."""
    if not len(some):
        return np.zeros(len(keys), bool)
    at = np.minimum(np.searchsorted(some, keys), len(some) - 1)
    return some[at] == keys


def _index_groups(store: Store, selection: str) -> Iterator[pa.Table]:
    """The index of finished shards, a row group at a time."""
    with open_parquet(store, layout.shard_index(selection), few_rows=True) as file:
        columns = [name for name in _INDEX_COLUMNS if name in file.schema_arrow.names]
        for group in range(file.num_row_groups):
            yield with_growth(file.read_row_group(group, columns=columns))


def _exported_keys(store: Store, selection: str) -> NDArray[np.uint64]:
    keys = [id_keys(index["clip_id"]) for index in _index_groups(store, selection)]
    return np.unique(np.concatenate([np.empty(0, np.uint64), *keys]))


def _parsed(shard: str) -> tuple[str, int]:
    """Bucket and number of '<bucket>/<number>.tar'."""
    bucket, number = shard.removesuffix(".tar").split("/")
    return bucket, int(number)

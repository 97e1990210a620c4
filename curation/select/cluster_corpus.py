"""Clusters of a corpus: its embeddings, some at a time, and the file of the centres."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curation.corpus import layout
from curation.corpus.parts import read_table, to_parquet
from curation.corpus.removal import Change, changed_file, sha256_of
from curation.corpus.store import Store
from curation.select.clusters import (
    SAMPLES_PER_CLUSTER,
    Clustering,
    Clusters,
    Vectors,
    centres_of,
    centres_table,
    cluster_clips,
    find_centres,
    nearest,
    unit_length,
)
from curation.select.scan import Corpus, Extent
from curation.select.second_look import SecondLook

logger = logging.getLogger(__name__)


def cluster_corpus(
    corpus: Corpus,
    extent: Extent,
    positions: NDArray[np.int64],
    config: Clusters,
    *,
    temp_folder: Path | None = None,
    second_look: SecondLook | None = None,
) -> Clustering:
    """Put some clips of a corpus to its centres, which are found first where there are none.

    Where only a second look is asked for, all are in one cluster, which has no number.

    Args:
        corpus: it has a layer of embeddings.
        extent: sizes of its parts.
        positions: of the clips, rising.
        config: the clusters.
        temp_folder: where a large file may lie meanwhile.
        second_look: what tells near copies, its clips those of ``positions``.
    """
    place = layout.centres(corpus.info.layers["embeddings"], config.num, config.seed)
    if config.num and corpus.store.exists(place):
        centres_KD = centres_of(read_table(corpus.store, place))
    else:
        num = max(config.num, 1)
        sample_ND = _sample(corpus, extent, num)
        if not len(sample_ND):  # no clip has an embedding
            return Clustering.none()
        centres_KD = find_centres(sample_ND, num, config.seed)
    if config.num and not corpus.store.exists(place):
        table = centres_table(centres_KD)
        corpus.store.write(place, to_parquet(table, made_by={"clusters": config.num}))
    first, edges = extent.first_clip, np.searchsorted(positions, extent.first_clip)

    def read(part: int) -> tuple[NDArray[np.int64], Vectors]:
        own = positions[edges[part] : edges[part + 1]]
        vectors_ND = embeddings_of(corpus, part, own - first[part])
        if not vectors_ND.size:  # none of these has one, so their length is not known here
            vectors_ND = np.zeros((len(own), centres_KD.shape[1]), np.float32)
        return own, vectors_ND

    def batches() -> Iterator[tuple[NDArray[np.int64], Vectors]]:
        wanted = np.flatnonzero(np.diff(edges)).tolist()
        return (found for _, found in corpus.in_order(read, wanted))

    found = cluster_clips(batches, centres_KD, config, temp_folder, second_look)
    return found if config.num else replace(Clustering.none(), copies=found.copies)


def embeddings_of(corpus: Corpus, part: int, rows: NDArray[np.int64] | None = None) -> Vectors:
    """Embeddings of unit length of one part's clips, ``[N, D]``; zeros where there is none."""
    lists = corpus.read_columns(part, ["embedding"])["embedding"].combine_chunks()
    return _vectors(lists if rows is None else lists.take(pa.array(rows)))


def _vectors(lists: pa.ListArray) -> Vectors:
    """Embeddings of unit length, ``[N, D]``; zeros where there is none."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy()
    width = int(lengths.max(initial=0))
    vectors_ND = np.zeros((len(lists), width), np.float32)
    vectors_ND[lengths > 0] = lists.flatten().to_numpy().reshape(-1, max(width, 1))[:, :width]
    return unit_length(vectors_ND)


def _sample(corpus: Corpus, extent: Extent, num: int) -> Vectors:
    """Embeddings to find centres from, of parts that are evenly spread over the corpus.

    Rules are not asked, so that selections of one corpus share their clusters.
    """
    wanted = num * SAMPLES_PER_CLUSTER
    complete, num_clips = np.array(corpus.gap.complete), np.array(extent.num_clips)
    count = 1
    while True:
        places = np.unique(np.linspace(0, len(complete) - 1, count).round().astype(int))
        parts = complete[places]
        # Twice, since of what is too short to be a clip there are no embeddings.
        if num_clips[parts].sum() >= 2 * wanted or len(parts) == len(complete):
            break
        count *= 2
    found = []
    for _, vectors_ND in corpus.in_order(lambda part: embeddings_of(corpus, part), parts.tolist()):
        found.append(vectors_ND[vectors_ND.any(axis=1)])
    filled = [vectors_ND for vectors_ND in found if len(vectors_ND)]
    sample_ND = np.concatenate(filled) if filled else np.zeros((0, 1), np.float32)
    if len(sample_ND) < wanted and num > 1:
        logger.warning(
            "%d centres are found from %d clips, %d would be enough; they stay as they are when the "
            "corpus grows",
            min(num, len(sample_ND)),
            len(sample_ND),
            wanted,
        )
    even = np.linspace(0, len(sample_ND) - 1, min(wanted, len(sample_ND))).round().astype(int)
    return sample_ND[even]


def renew_centres(store: Store) -> Iterator[Change]:
    """Make the centres of all clusters anew of the clips that are left, each under its number.

    The centre of few clips tells what they show, and that of one is its embedding. A centre of which no clip
    is left becomes zeros, which later clips are not put to. Centres go whose layer of embeddings is gone.

    Args:
        store: the corpus, its layers free of what was removed.
    """
    for path in store.files("clusters"):
        layer_id = path.rpartition("/")[2].rsplit("-", 2)[0]
        centres_KD = centres_of(read_table(store, path))
        sums_KD = np.zeros(centres_KD.shape, np.float64)
        files = store.files(layout.layer_folder(layer_id))
        parts = [name for name in files if layout.part_number(name) is not None]
        for part in parts:
            lists = read_table(store, part, ["embedding"])["embedding"].combine_chunks()
            vectors_ND = _vectors(lists)
            vectors_ND = vectors_ND[vectors_ND.any(axis=1)]
            if len(vectors_ND):
                np.add.at(sums_KD, nearest(vectors_ND, centres_KD)[0], vectors_ND)
        if not parts:
            before = sha256_of(store, path)
            store.delete(path)
            yield Change(file=path, num_removed=0, sha256_before=before, sha256_after=None)
            continue
        with changed_file(store, path, 0) as change:
            table = centres_table(unit_length(sums_KD.astype(np.float32)))
            store.write(path, to_parquet(table, made_by={"clusters": len(centres_KD)}))
        yield change.made()

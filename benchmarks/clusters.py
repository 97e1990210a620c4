"""How long does it take to cluster a million embeddings, and in how much memory?

Writes generated embeddings (2,000 directions with noise, 1,280 numbers as of EfficientNet-Lite0) as a
layer in real part files, not timed, then finds centres, puts every clip to one and looks for neighbours,
in a process of its own. Says also how far clips are from their centres, and how many of the planted near
pairs are found.

    python benchmarks/clusters.py --scratch /some/folder [--clips 1000000] [--num 1000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curation.corpus import layout
from curation.corpus.gap import Gap
from curation.corpus.manifest import CorpusInfo
from curation.corpus.parts import to_parquet
from curation.corpus.schema import layer_schema
from curation.corpus.store import Store
from curation.select import cluster_corpus, clusters
from curation.select.scan import Corpus, Extent

WIDTH = 1280
PER_PART = 1000
NEAR_SHARE = 0.01
LAYER = {name: f"{name}@1-000000000000" for name in ("scenes", "embeddings")}


def write(folder: str, num_parts: int) -> None:
    """The layer of embeddings, and ids of the scenes."""
    store = Store(folder)
    directions = np.random.default_rng(1).normal(size=(2_000, WIDTH)).astype(np.float32)
    for part in range(num_parts):
        if store.exists(layout.layer(LAYER["embeddings"], part)):
            continue
        rng = np.random.default_rng([2, part])
        found = directions[rng.integers(0, len(directions), PER_PART)]
        found = found + 0.7 * rng.normal(size=found.shape).astype(np.float32)
        near = np.arange(1, int(2 * NEAR_SHARE * PER_PART), 2)
        found[near] = found[near - 1] + 0.1 * rng.normal(size=(len(near), WIDTH))
        values = clusters.unit_length(found.astype(np.float32)).reshape(-1)
        offsets = pa.array(np.arange(0, PER_PART + 1, dtype=np.int32) * WIDTH)
        ids = pa.array([f"{part}-{n}" for n in range(PER_PART)])
        columns = {"clip_id": ids, "embedding": pa.ListArray.from_arrays(offsets, pa.array(values))}
        for name, layer in LAYER.items():
            fields = layer_schema(name)
            table = pa.table(
                [columns.get(f.name, pa.nulls(PER_PART, f.type)) for f in fields], schema=fields
            )
            store.write(layout.layer(layer, part), to_parquet(table))


def measure(folder: str, num_parts: int, num: int) -> None:
    """Cluster, and print what it took."""
    store, info = Store(folder), CorpusInfo(num_parts=num_parts, layers=LAYER)
    corpus = Corpus(store, info, Gap((), num_parts), threads=2)
    extent = Extent((1,) * num_parts, (PER_PART,) * num_parts)
    config = clusters.Clusters(num=num)
    positions = np.arange(num_parts * PER_PART)
    corpus.store.delete(layout.centres(LAYER["embeddings"], num, 0))
    begin, cpu = time.perf_counter(), time.process_time()
    sample = cluster_corpus._sample(corpus, extent, num)
    centres = clusters.find_centres(sample, num, 0)
    between = time.perf_counter()
    del sample
    place = layout.centres(LAYER["embeddings"], num, 0)
    corpus.store.write(place, to_parquet(clusters.centres_table(centres)))
    found = cluster_corpus.cluster_corpus(
        corpus, extent, positions, config, temp_folder=Path(folder)
    )
    end, used = time.perf_counter(), time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    planted = {
        part * PER_PART + n
        for part in range(num_parts)
        for n in range(0, int(2 * NEAR_SHARE * PER_PART), 2)
    }
    told = {min(pair) for pair in found.pairs.tolist() if abs(pair[0] - pair[1]) == 1}
    print(
        f"{len(positions):,} clips, {num} clusters: centres {between - begin:.0f} s, the rest "
        f"{end - between:.0f} s, {used:.0f} CPU-s in all, {peak:,.0f} MiB at most; mean distance "
        f"{np.nanmean(found.distance):.4f}; {len(planted & told) / len(planted):.1%} of the planted near "
        f"pairs, {len(found.pairs) - len(planted & told):,} others"
    )


def main() -> None:
    """Write, then measure in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--num", type=int, default=1000)
    args = parser.parse_args()
    num_parts = args.clips // PER_PART
    for target, arguments in (
        (write, (str(args.scratch), num_parts)),
        (measure, (str(args.scratch), num_parts, args.num)),
    ):
        process = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(process.exitcode)


if __name__ == "__main__":
    main()

"""What reading training samples costs, against bare decoding of the same frames and webdataset.

    python -m benchmarks.loader CORPUS [--selection default] [--samples 60] [--rounds 3]
    python -m benchmarks.loader --entries 25000000

The first reads samples of 16 frames of 320x512 from a corpus in three ways, in one process and on
one thread, in turns; CPU-seconds are compared by their medians:

    bare        PyAV alone: the clip's bytes are in memory, seek, decode up to the last frame, scale
                the 16 frames; what a loop written for this one purpose does
    webdataset  its tar reader, with our decoding of the same numbers of frames
    loader      TrainingData: order, range requests, decoding, captions, batches

The second measures the order of a corpus of so many clips in shards of a thousand: time for 4,096
indices and memory; and catalogs of a 250th, a 50th and a tenth as many.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import webdataset as wds

from curation.corpus.schema import SHARD_INDEX, schema
from curation.corpus.shards import read_sample
from curation.corpus.store import Store
from training.data.catalog import open_catalog
from training.data.filtering import ClipRequirements, IndexReader
from training.data.loader import TrainingData
from training.data.order import Permutation, ShardOrder
from training.data.pace import Pace
from training.data.picture import covering, view
from training.data.reading import read_frames
from training.data.samples import SampleKey
from training.run_config import DataConfig, Phase, SampleConfig, Source, TrainConfig

SIZE = (320, 512)
FRAMES, FPS = 16, 8.0
INDICES = 4096
ROWS_PER_SHARD = 1000


def run_of(corpus: str, selection: str, steps: int, *, images: int = 0) -> TrainConfig:
    """Samples of the paper's base stage, one a step; nothing held out, nothing dropped."""
    return TrainConfig(
        phases=(Phase(steps=steps, sizes_px=(SIZE,)),),
        sample=SampleConfig(num_frames=FRAMES, fps=FPS, images_per_video=images),
        data=DataConfig(
            sources=(Source(corpus=corpus, selection=selection),),
            batch_size=1,
            holdout_share=0.0,
            max_dropped_share=1.0,
            num_workers=0,
        ),
    )


def cpu_s(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def bare_decode(data: bytes, start_s: float, size_px: tuple[int, int]) -> None:
    """Seek, decode until the last wanted frame, scale the wanted ones; as PyAV's pages show it."""
    wanted = [start_s + number / FPS for number in range(FRAMES)]
    taken = []
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        container.seek(int(start_s / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            while len(taken) < FRAMES and frame.time >= wanted[len(taken)] - 0.5 / 24:
                small = frame.reformat(
                    width=size_px[1], height=size_px[0], format="rgb24", interpolation="BICUBIC"
                )
                taken.append(small.to_ndarray())
            if len(taken) == FRAMES:
                break


def reading(corpus: str, selection: str, samples: int, rounds: int, cache: Path) -> None:
    """CPU-seconds a sample of the three ways."""
    config = run_of(corpus, selection, samples)
    data = TrainingData(config, cache=cache)
    joint = TrainingData(run_of(corpus, selection, samples, images=4), cache=cache)
    planned = list(planned_clips(data, config, Store(corpus), selection))
    tars = sorted({name for *_, name in planned})
    urls = [f"file:{Path(corpus) / 'shards' / selection / name}" for name in tars]
    starts = {row["clip_id"]: start_s for _, start_s, row, _ in planned}
    ways: dict[str, Callable[[], None]] = {
        "bare": lambda: bare(planned),
        "webdataset": lambda: with_webdataset(urls, starts, samples),
        "loader": lambda: loader(data),
        "loader, 16 + 4 images": lambda: loader(joint),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, work in ways.items():
            found[name].append(cpu_s(work) / samples)
    middle = {name: statistics.median(costs) for name, costs in found.items()}
    for name, cost in middle.items():
        print(
            f"{name:22} {1e3 * cost:7.1f} CPU-ms a sample  {1 / cost:6.1f} samples a CPU-s  "
            f"x{middle['bare'] / cost:.2f} of bare  x{middle['webdataset'] / cost:.2f} of webdataset"
        )


def bare(planned: list[tuple[bytes, float, dict[str, Any], str]]) -> None:
    for media, start_s, row, _ in planned:
        bare_decode(media, start_s, covering(row["height"], row["width"], SIZE))


def with_webdataset(urls: list[str], starts: dict[str, float], samples: int) -> None:
    left = samples
    for sample in wds.WebDataset(urls, shardshuffle=False).repeat():
        facts = json.loads(sample["json"])
        if facts["clip_id"] not in starts:
            continue
        start_s = starts[facts["clip_id"]]
        shown = view(facts["media_height"], facts["media_width"], SIZE, fit="cover", draw=None)
        read_frames(sample["mp4"], [start_s + n / FPS for n in range(FRAMES)], shown)
        left -= 1
        if not left:
            return


def loader(data: TrainingData) -> None:
    for _ in data.batches(start_step=0, rank=0, world_size=1, draw=lambda *_: {}):
        pass


def planned_clips(data: TrainingData, config: TrainConfig, store: Store, selection: str):  # type: ignore[no-untyped-def]
    """(bytes, start, row, shard) of the clip of each step."""
    plan, _ = data._plan()
    for step in range(config.num_steps):
        planned = plan.at(step)
        number = int(planned.order.planned(planned.epoch, planned.places([0]))[0])
        row = planned.order.pool.row(number)
        last_s = (row["num_frames"] - 1) / row["fps"]
        room_s = max(0.0, last_s - config.sample.duration_s)
        start_s = SampleKey(config.seed, step, 0, 0).draw("start").random() * room_s
        key = row["media_name"].rpartition(".")[0]
        sample = read_sample(store, selection, row | {"key": key})
        yield sample.media, start_s, row, row["shard"]


def order(entries: int) -> None:
    """Time and memory of the order."""
    for number in (entries // 100, entries):
        sizes = np.full(number // ROWS_PER_SHARD, ROWS_PER_SHARD)
        tracemalloc.start()
        shards = ShardOrder(sizes, seed=1, window_shards=10)
        shards.rows(1, np.arange(INDICES))
        memory = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        first_ms = 1e3 * cpu_s(lambda shards=shards: shards.rows(0, np.arange(INDICES)))
        costs = [
            1e3 * cpu_s(lambda n=n, shards=shards: shards.rows(0, np.arange(n, n + INDICES)))
            for n in range(0, number - INDICES, max(INDICES, number // 50))
        ]
        print(
            f"{number:,} entries: {INDICES:,} indices in {statistics.median(costs):.2f} CPU-ms "
            f"(the first of an epoch {first_ms:.2f}), {memory / 1e6:.2f} MB held"
        )
    flat = Permutation(entries, 3)
    costs = [
        1e3 * cpu_s(lambda n=n: flat(np.arange(n, n + INDICES))) for n in range(0, 10**6, 10**5)
    ]
    print(f"without shards: {statistics.median(costs):.2f} CPU-ms")


def catalog(rows: int) -> None:
    """CPU-seconds and memory of making and opening a catalog."""
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(scratch)
        path = Path(scratch) / "index.parquet"
        write_index(path, rows)
        requirements = ClipRequirements(
            sizes_px=(SIZE,),
            pace=Pace(num_frames=FRAMES, fps=FPS, name="even", tolerance=0.25),
            fit="cover",
            kinds=("video",),
            holdout_share=0.01,
            holdout_by="source",
            seed=0,
        )
        before = private_bytes()
        index = IndexReader(store, "index.parquet", "benchmark", requirements)
        cost = cpu_s(lambda: open_catalog(index, source=0, cache=Path(scratch) / "cache"))
        made = private_bytes()
        opened = open_catalog(index, source=0, cache=Path(scratch) / "cache")
        (pool,) = opened.pools("train", "video")
        generator = np.random.default_rng(0)
        numbers = generator.integers(0, pool.num_rows, 10_000)
        per_row = cpu_s(lambda: [pool.row(number) for number in numbers]) / len(numbers)
        size = sum(file.stat().st_size for file in (Path(scratch) / "cache").rglob("*.*"))
        print(
            f"catalog of {rows:,} rows: {cost:.1f} CPU-s, {(made - before) / 1e6:.0f} MB more of its own, "
            f"{size / rows:.0f} bytes a row on disk; a row is read in {1e6 * per_row:.0f} CPU-us"
        )


def private_bytes() -> int:
    """Memory of this process without files that it maps."""
    memory = psutil.Process().memory_info()
    return int(memory.rss - memory.shared)


def write_index(path: Path, rows: int) -> None:
    """An index as `lavie export` writes it, of clips that do not exist."""
    names = schema(SHARD_INDEX)
    piece = 65_536
    with pq.ParquetWriter(path, names, compression="zstd", write_page_checksum=True) as writer:
        for begin in range(0, rows, piece):
            number = np.arange(begin, min(begin + piece, rows))
            columns = {
                "clip_id": [f"{n:08x}-0000-5000-8000-000000000000" for n in number],
                "shard": [f"16x9/{n // ROWS_PER_SHARD:06d}.tar" for n in number],
                "media_name": [f"{n:08x}-0000-5000-8000-000000000000.mp4" for n in number],
                "source_sha256": [f"{n // 20:064x}" for n in number],
                "caption": ["a sentence of some words about what is seen"] * len(number),
                "num_frames": np.full(len(number), 96),
                "fps": np.full(len(number), 24.0),
                "duration_s": np.full(len(number), 4.0),
                "width": np.full(len(number), 1280),
                "height": np.full(len(number), 720),
                "sampling_weight": np.ones(len(number)),
            }
            columns |= {
                name: number * 1024 for name in names.names if name.endswith(("_offset", "_size"))
            }
            empty = pa.nulls(len(number))
            arrays = [
                pa.array(columns[f.name], f.type) if f.name in columns else empty.cast(f.type)
                for f in names
            ]
            writer.write_table(pa.table(arrays, schema=names))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("corpus", nargs="?")
    parser.add_argument("--selection", default="default")
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--entries", type=int)
    given = parser.parse_args()
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    if given.corpus:
        with tempfile.TemporaryDirectory() as cache:
            reading(given.corpus, given.selection, given.samples, given.rounds, Path(cache))
    if given.entries:
        order(given.entries)
        for rows in (given.entries // 250, given.entries // 50, given.entries // 10):
            catalog(rows)


if __name__ == "__main__":
    main()

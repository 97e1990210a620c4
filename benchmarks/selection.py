"""How long does it take to select from 25 million clips?

Makes a corpus of generated rows in real part files (not timed), then runs `select` on it in a
process of its own: eleven rules with a quantile and a column of the sources, two tiers, copies,
look-alikes (3 % of the clips are planted ones), a limit for each source, weights, buckets.

    python benchmarks/selection.py --scratch /some/folder

Not called select.py: Python would then take it for the standard library's `select` in every script
of this folder.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.corpus import layout
from curation.corpus.manifest import CorpusInfo, read_corpus
from curation.corpus.parts import to_parquet, with_rows_digest
from curation.corpus.schema import SOURCES, layer_schema, schema
from curation.corpus.store import Store
from curation.select import Balance, Rule, SelectConfig, SelectResources, Tier, select

CLIPS_PER_SOURCE = 50
PLANTED_GROUPS_SHARE = 0.01
LAYERS = ("aesthetics", "overlay_text", "safety", "taxonomy", "caption_text")
IDS = {name: f"{name}@1-000000000000" for name in ("probe", "scenes", *LAYERS)}

CONFIG = SelectConfig(
    rules=(
        Rule(column="num_frames", min=16, media="video"),
        Rule(column="short_side", min=480),
        Rule(column="aspect", min=1.16),
        Rule(column="brightness_mean", min=20, max=235),
        Rule(column="motion_mean", min_quantile=0.1, media="video", keep_null=True),
        Rule(column="aesthetic_score", min=4.0),
        Rule(column="text_area_share", max=0.07),
        Rule(column="nsfw_score", max=0.5),
        Rule(column="caption_words", min=3),
        Rule(column="caption_language", one_of=("en",)),
        Rule(column="licence", none_of=("unknown",)),
    ),
    tiers=(
        Tier(name="fair", rules=(Rule(column="aesthetic_score", min=5.0),)),
        Tier(name="high", rules=(Rule(column="aesthetic_score", min_quantile=0.9),)),
    ),
    balance=Balance(max_per_source=30, weight_by_category=True),
    quality_column="aesthetic_score",
)


def random_ids(rng: np.random.Generator, count: int) -> pa.Array:
    """Random texts of a UUID's form."""
    digits = np.frombuffer(rng.bytes(16 * count).hex().encode(), dtype="S1").reshape(count, 32)
    text = np.full((count, 36), b"-", dtype="S1")
    for start, end, shift in ((0, 8, 0), (8, 12, 1), (12, 16, 2), (16, 20, 3), (20, 32, 4)):
        text[:, start + shift : end + shift] = digits[:, start:end]
    offsets = pa.py_buffer(np.arange(0, 36 * count + 1, 36, dtype=np.int32))
    return pa.StringArray.from_buffers(count, offsets, pa.py_buffer(text.tobytes()))


def mixed(numbers: np.ndarray) -> np.ndarray:
    """Well mixed 64 bits of each number (splitmix64), the same in every part."""
    z = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def hashes(rng: np.random.Generator, count: int, groups: int) -> pa.Array:
    """Eight hashes a clip; 3 % of the clips are near-copies of one of ``groups`` pictures."""
    values = rng.integers(0, 2**64, size=(count, 8), dtype=np.uint64)
    planted = np.flatnonzero(rng.random(count) < 0.03)
    group = rng.integers(0, groups, size=len(planted))
    values[planted] = mixed(group[:, None] * 8 + np.arange(8)[None, :])
    flips = rng.integers(0, 64, size=(len(planted), 8, 2), dtype=np.uint64)
    values[planted] ^= (np.uint64(1) << flips[..., 0]) | (np.uint64(1) << flips[..., 1])
    offsets = pa.array(np.arange(0, 8 * count + 1, 8, dtype=np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))


def choice(rng: np.random.Generator, words: list[str | None], shares: list[float], count: int):
    """Random words."""
    numbers = rng.choice(len(words), size=count, p=shares)
    return pa.array(words, pa.string()).take(pa.array(numbers))


def part_columns(number: int, count: int, groups: int) -> tuple[dict, dict]:
    """Columns of one part's sources and clips; every other column of the layers is noise."""
    rng = np.random.default_rng([20230926, number])
    num_sources = max(1, count // CLIPS_PER_SOURCE)
    digests = [f"{n:064x}" for n in rng.integers(0, 2**62, size=num_sources)]
    sources = {
        "uri": pa.array([f"s3://bucket/{number}/{n}.mp4" for n in range(num_sources)]),
        "source_sha256": pa.array(digests),
        "source_reject": pa.nulls(num_sources, pa.string()),
        "licence": choice(rng, ["CC-BY", "CC0", "unknown"], [0.6, 0.35, 0.05], num_sources),
    }
    sizes = np.array([[1280, 720], [1920, 1080], [640, 360], [720, 1280], [854, 480]])
    size = sizes[rng.choice(5, size=count, p=[0.4, 0.35, 0.1, 0.05, 0.1])].astype(np.int32)
    duration = np.maximum(0.5, rng.gamma(2.0, 3.0, size=count)).astype(np.float32)
    f32 = np.float32
    motion = rng.gamma(1.0, 0.2, size=count).astype(f32)
    clips = {
        "clip_id": random_ids(rng, count),
        "source_row": pa.array(np.sort(rng.integers(0, num_sources, count)).astype(np.int32)),
        "scene_reject": choice(rng, [None, "too_short"], [0.92, 0.08], count),
        "width": pa.array(size[:, 0]),
        "height": pa.array(size[:, 1]),
        "duration_s": pa.array(duration),
        "num_frames": pa.array((duration * 25).astype(np.int32)),
        "motion_mean": pa.array(motion, mask=rng.random(count) < 0.02),
        "brightness_mean": pa.array(rng.normal(110, 40, count).clip(0, 255).astype(f32)),
        "perceptual_hashes": hashes(rng, count, groups),
        "aesthetic_score": pa.array(rng.normal(5, 0.8, count).astype(f32)),
        "text_area_share": pa.array(rng.exponential(0.02, count).astype(f32)),
        "nsfw_score": pa.array(rng.beta(0.3, 5, count).astype(f32)),
        "category": choice(rng, [f"category {n}" for n in range(10)], [0.1] * 10, count),
        "caption_words": pa.array(rng.poisson(10, count).astype(np.int32)),
        "caption_language": choice(rng, ["en", "de", "fr", None], [0.9, 0.04, 0.04, 0.02], count),
    }
    return sources, clips


def noise(rng: np.random.Generator, kind: pa.DataType, count: int) -> pa.Array:
    """A column that selection does not read, so that files have their real size."""
    if pa.types.is_integer(kind):
        return pa.array(rng.integers(0, 10_000, count)).cast(kind)
    if pa.types.is_floating(kind):
        return pa.array(rng.random(count, dtype=np.float32)).cast(kind)
    if pa.types.is_string(kind):
        return choice(rng, ["start", "cut", "end"], [0.2, 0.6, 0.2], count)
    return pa.nulls(count, kind)


def write_part(task: tuple[str, int, int, int]) -> None:
    """One part of every layer."""
    root, number, count, groups = task
    store = Store(root)
    sources, clips = part_columns(number, count, groups)
    rng = np.random.default_rng([1, number])
    tables = [(layout.sources(number), schema(SOURCES), sources)]
    for name in ("probe", "scenes", *LAYERS):
        known = sources if name == "probe" else clips
        tables.append((layout.layer(IDS[name], number), layer_schema(name), known))
    for path, fields, known in tables:
        rows = len(next(iter(known.values())))
        columns = [known.get(f.name, None) for f in fields]
        columns = [
            noise(rng, f.type, rows) if c is None else c
            for f, c in zip(fields, columns, strict=True)
        ]
        store.write(path, to_parquet(with_rows_digest(pa.table(columns, schema=fields))))


def make_corpus(root: Path, *, num_clips: int, num_parts: int) -> None:
    """The generated corpus, if it is not there yet."""
    if (root / layout.CORPUS).exists():
        return
    share, rest = divmod(num_clips, num_parts)
    groups = max(1, int(num_clips * PLANTED_GROUPS_SHARE))
    tasks = [(str(root), n, share + (n < rest), groups) for n in range(num_parts)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.imap_unordered(write_part, tasks), start=1):
            if done % max(1, num_parts // 20) == 0:
                print(f"made {done} of {num_parts} parts", flush=True)
    CorpusInfo(num_parts=num_parts, layers=IDS).write(Store(str(root)))


class Stages:
    """Wall and CPU seconds between the stages that `select` tells of."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self._begin = self._now = (time.perf_counter(), cpu_seconds())
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Take a report of `select`."""
        if stage != self._stage:
            self._close(f"after {self._stage}" if self._stage else "start")
            self._stage = stage
        if done == total:
            self._close(stage)

    def _close(self, name: str) -> None:
        now = (time.perf_counter(), cpu_seconds())
        wall, cpu = self.seconds.setdefault(name, [0.0, 0.0])
        self.seconds[name] = [wall + now[0] - self._now[0], cpu + now[1] - self._now[1]]
        self._now = now

    def total(self) -> list[float]:
        """Since the beginning."""
        self._close("end")
        return [self._now[0] - self._begin[0], self._now[1] - self._begin[1]]


def cpu_seconds() -> float:
    """Of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(root: str, threads: int, memory_mib: int, answer: multiprocessing.Queue) -> None:
    """Select once, in a process that does nothing else."""
    store = Store(root)
    info = read_corpus(store)
    stages = Stages()
    resources = SelectResources(threads=threads, memory_bytes=memory_mib * 1024**2)
    funnel = select(store, info, "bench", CONFIG, resources=resources, on_progress=stages)
    wall, cpu = stages.total()
    answer.put(
        {
            "clips": funnel.clips.clips,
            "kept": funnel.kept.clips,
            "duplicate_groups": funnel.duplicate_groups,
            "parts": info.num_parts,
            "wall_s": round(wall, 1),
            "cpu_s": round(cpu, 1),
            "peak_rss_gb": round(
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, 2
            ),
            "stages_wall_cpu_s": {
                name: [round(w, 1), round(c, 1)] for name, (w, c) in stages.seconds.items()
            },
        }
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scratch", type=Path, required=True, help="folder for the corpus")
    parser.add_argument("--clips", type=int, default=25_000_000)
    parser.add_argument("--parts", type=int, default=250, help="each costs about 25 ms")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-mib", type=int, default=3072, help="of the query engine")
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    root = options.scratch / f"select-{options.clips}-{options.parts}"
    make_corpus(root, num_clips=options.clips, num_parts=options.parts)
    context = multiprocessing.get_context("spawn")
    for _ in range(options.runs):
        answer = context.Queue()
        arguments = (str(root), options.threads, options.memory_mib, answer)
        process = context.Process(target=measure, args=arguments)
        process.start()
        print(json.dumps(answer.get(), indent=1), flush=True)
        process.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What a corpus of many clips takes: parts, files, requests, bytes, hours and dollars, by arithmetic.

::

    python benchmarks/scale.py                     # with the figures that docs/scale.md states
    python benchmarks/scale.py --corpus CORPUS     # bytes a clip as they lie in a corpus that is there

Nothing is run: every figure comes from the constants below, each with where it was measured.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from curation.corpus.manifest import read_corpus
from curation.corpus.parts import num_clips
from curation.corpus.schema import LAYER_OF
from curation.corpus.store import Store
from curation.export import ExportConfig
from pipelines.presets import embedded
from pipelines.river import stations

FILM_S = 651.0
"""Seconds of the two films of docs/performance.md, "The whole `embedded` run on a film"."""
FILM_SCENES = 92
"""Scenes of the two that are long enough to be clips (docs/performance.md, "Look-alikes")."""
DECODE_CPU_S = 59.2 * 1.23
"""CPU-seconds of the pass over them; 1.23 is what version 7 adds ("The decoding pass")."""
STATIONS_CPU_S = 64.4 + 45.6 + 28.0 + 8.1 + 1.5 + 11.8
"""CPU-seconds of the keyframe stations over them, all on processors."""
EXPORT_CPU_S_A_MINUTE = 29.84
"""CPU-seconds to cut a minute of clips exactly ("Cutting clips")."""
EXPORT_BYTES_A_S = 5.2e6 / 32
"""Bytes of a second of exported clip (the same table: 8 clips of 4 s)."""
KEPT_SHARE = 12.07 / 25
"""Share that a selection keeps ("Selecting from 25 million clips")."""
SELECT_CPU_S = 66.0
"""CPU-seconds of a selection of 25 million clips besides what its parts cost (the same)."""
SELECT_CPU_S_A_PART = (140.0 - 66.0) / (2500 - 250)
"""CPU-seconds of a selection for each part (the same: 2,500 parts against 250)."""
SELECT_BYTES_A_CLIP = 5.3e9 / 25e6
"""Memory of a selection (the same)."""
DRIVER_S_A_UNIT = 0.0008
"""Seconds of the driver for each unit ("Scheduling")."""
RESUME_CPU_S_A_PART = 12.0 / 100_000
"""CPU-seconds to ask a finished corpus, for each part ("Asking a finished corpus")."""
KEYS_A_LISTING = 1000
"""Names in an answer of an object store."""
DECODE_BYTES = 669e6
"""Memory of a worker with its child over a small part ("The whole `embedded` run on a film")."""
HELD_SHARE = 2.43
"""Bytes that a worker holds at the end of a part for each byte of keyframes; docs/scale.md."""
LIGHT_BYTES_A_CLIP = 11_000.0
"""Bytes a clip of all layers but the keyframes, most of them embeddings; docs/scale.md."""
KEYFRAME_BYTES_A_CLIP = 423_000.0
"""Bytes of the keyframes of a clip of 720p."""


@dataclass(frozen=True)
class Prices:
    """Assumptions, in dollars; put your own."""

    core_hour: float = 0.015
    """A core of a spot machine."""
    gigabyte_month: float = 0.023
    """A gigabyte in an object store for a month."""
    thousand_puts: float = 0.005
    thousand_gets: float = 0.0004


@dataclass(frozen=True)
class Plan:
    """A corpus and the parts that it is dealt into."""

    clips: float
    part_clips: float
    keyframe_bytes: float = KEYFRAME_BYTES_A_CLIP
    light_bytes: float = LIGHT_BYTES_A_CLIP
    cores: int = 1000

    @property
    def video_hours(self) -> float:
        """Hours of the sources."""
        return self.clips / FILM_SCENES * FILM_S / 3600

    @property
    def parts(self) -> float:
        """How many."""
        return self.clips / self.part_clips

    @property
    def core_hours(self) -> dict[str, float]:
        """Processor time by what it goes into."""
        films = self.clips / FILM_SCENES
        kept_minutes = self.video_hours * 60 * KEPT_SHARE
        return {
            "decode": films * DECODE_CPU_S / 3600,
            "keyframe stations": films * STATIONS_CPU_S / 3600,
            "export": kept_minutes * EXPORT_CPU_S_A_MINUTE / 3600,
        }

    @property
    def files(self) -> dict[str, float]:
        """One a part and layer, the sources, the verdicts; a tar and its index a shard."""
        kept_s = self.video_hours * 3600 * KEPT_SHARE
        return {
            "layers": self.parts * len(LAYERS),
            "sources, verdicts": 2 * self.parts,
            "shards": 2 * kept_s / ExportConfig().max_seconds_per_shard,
        }

    @property
    def bytes(self) -> dict[str, float]:
        """Bytes that are stored."""
        return {
            "keyframes": self.clips * self.keyframe_bytes,
            "other layers": self.clips * self.light_bytes,
            "shards": self.video_hours * 3600 * KEPT_SHARE * EXPORT_BYTES_A_S,
        }

    @property
    def gets(self) -> float:
        """Two a file that is read (its length, its bytes); keyframes by groups of 64 clips."""
        light = 2 * self.parts * sum(len(read - {"keyframes"}) for read in READS.values())
        heavy = sum("keyframes" in read for read in READS.values())
        return light + heavy * self.parts * (2 + self.part_clips / 64)

    @property
    def select_core_s(self) -> float:
        """CPU-seconds of one selection."""
        return SELECT_CPU_S * self.clips / 25e6 + SELECT_CPU_S_A_PART * self.parts

    @property
    def worker_bytes(self) -> float:
        """Memory of a worker that decodes, at the end of a part."""
        return DECODE_BYTES + HELD_SHARE * self.part_clips * self.keyframe_bytes

    @property
    def part_core_minutes(self) -> float:
        """What a worker loses at the most when its machine goes: a part of the slowest stage."""
        return self.part_clips / FILM_SCENES * DECODE_CPU_S / 60


_RIVER = embedded().river
READS = {
    station.name: {LAYER_OF[name] for name in station.needs} | {"scenes"}
    for station in stations(_RIVER)
}
"""Station -> layers that it reads of each part."""
LAYERS = ("probe", "scenes", "keyframes", *READS)


def rows(plan: Plan, prices: Prices) -> Iterator[tuple[str, str]]:
    """Name and figure of all that is told of a plan."""
    puts = sum(plan.files.values())
    stored = sum(plan.bytes.values())
    hours = sum(plan.core_hours.values())
    units = plan.parts * (1 + len(READS))
    yield "hours of video", f"{plan.video_hours:,.0f}"
    yield "parts", f"{plan.parts:,.0f}"
    yield "files: " + ", ".join(plan.files), ", ".join(f"{n:,.0f}" for n in plan.files.values())
    yield "requests to put, to read", f"{puts:,.0f}, {plan.gets:,.0f}"
    yield "requests to list a layer", f"{plan.parts / KEYS_A_LISTING:,.0f}"
    for name, size in plan.bytes.items():
        yield f"TB of {name}", f"{size / 1e12:,.2f}"
    yield "MB of keyframes a part", f"{plan.part_clips * plan.keyframe_bytes / 1e6:,.0f}"
    yield "GB of memory of a worker that decodes", f"{plan.worker_bytes / 1e9:,.1f}"
    for name, core_hours in plan.core_hours.items():
        yield f"core-hours of {name}", f"{core_hours:,.0f}"
    yield f"days on {plan.cores:,} cores", f"{hours / plan.cores / 24:,.1f}"
    yield "core-minutes lost with a worker", f"{plan.part_core_minutes:,.1f}"
    yield "hours of the driver over all units", f"{units * DRIVER_S_A_UNIT / 3600:,.1f}"
    yield "core-minutes of select", f"{plan.select_core_s / 60:,.0f}"
    yield "GB of memory of select", f"{plan.clips * SELECT_BYTES_A_CLIP / 1e9:,.0f}"
    yield "core-s to ask when finished", f"{plan.parts * RESUME_CPU_S_A_PART:,.0f}"
    yield "$ of cores", f"{hours * prices.core_hour:,.0f}"
    requests = puts * prices.thousand_puts + plan.gets * prices.thousand_gets
    yield "$ of requests", f"{requests / 1000:,.0f}"
    yield "$ a month of storage", f"{stored / 1e9 * prices.gigabyte_month:,.0f}"


def bytes_a_clip(corpus: Path) -> tuple[float, float]:
    """Bytes of keyframes, and of all other layers, for each clip of a corpus on disk."""
    store = Store(str(corpus))
    info = read_corpus(store)
    clips = sum(num_clips(store, info.layers, part) for part in range(info.num_parts))
    sizes = {
        name: sum(file.stat().st_size for file in (corpus / "layers" / one).glob("part-*.parquet"))
        for name, one in info.layers.items()
    }
    heavy = sizes.pop("keyframes")
    return heavy / clips, sum(sizes.values()) / clips


def main() -> None:
    """Print a table of plans."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--part-clips", type=float, nargs="+", default=[400, 1600, 10_000])
    parser.add_argument("--clips", type=float, nargs="+", default=[25e6, 1e9])
    parser.add_argument("--cores", type=int, default=1000)
    parser.add_argument("--core-hour", type=float, default=Prices.core_hour)
    given = parser.parse_args()
    plans = [
        Plan(clips, part_clips, cores=given.cores)
        for clips in given.clips
        for part_clips in given.part_clips
    ]
    if given.corpus is not None:
        heavy, light = bytes_a_clip(given.corpus)
        print(f"{heavy:,.0f} bytes of keyframes a clip, {light:,.0f} of other layers\n")
        plans = [replace(plan, keyframe_bytes=heavy, light_bytes=light) for plan in plans]
    tables = [dict(rows(plan, Prices(core_hour=given.core_hour))) for plan in plans]
    heads = [f"{p.clips / 1e6:,.0f} M clips, {p.part_clips:,.0f} a part" for p in plans]
    print(f"| | {' | '.join(heads)} |\n|{' --- |' * (len(heads) + 1)}")
    for name in tables[0]:
        print(f"| {name} | {' | '.join(table[name] for table in tables)} |")


if __name__ == "__main__":
    main()

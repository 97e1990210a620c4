"""Mutated copies of small films through the guarded decoding pass: what falls over?

    python benchmarks/fuzz.py [--files 2000] [--seed 0] [--films FOLDER] [--keep FOLDER]

Small films in the containers and codecs that the gate lets in are made with ffmpeg, or taken from a
folder; each copy has a few mutations, half of them in the first and last kilobytes, where headers
and indexes lie: bits flipped, stretches zeroed, cut out, doubled or moved, numbers made huge, the
end cut off. Every copy must become a probe row, in bounded time; a decoder that dies is one
source's reject reason, and is counted. Resident memory of the worker and of its decoding child is
read after each round: over the run it must not grow.

--keep leaves the copies that killed the decoder, or took too long, in a folder.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pyarrow as pa

from curation.corpus.schema import SOURCES, schema
from curation.decode.decoding_pass import DecodeConfig, DecodingPass
from curation.media.probe import Limits

TIMEOUT_S = 60.0
ROUND = 50
"""Files between two readings of memory."""
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "20", "-bf", "2")
FILMS: dict[str, tuple[str, ...]] = {
    "h264.mp4": H264,
    "fragments.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov"),
    "h264.mkv": H264,
    "h264.ts": H264,
    "hevc.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime"),
    "vp9.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "av1.mkv": ("-c:v", "libsvtav1", "-preset", "12", "-svtav1-params", "lp=1"),
    "xvid.avi": ("-c:v", "libxvid", "-bf", "2"),
    "mjpeg.avi": ("-c:v", "mjpeg", "-pix_fmt", "yuvj420p"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-bf", "2"),
    "mpeg2.ts": ("-c:v", "mpeg2video", "-bf", "2"),
    "h263.flv": ("-c:v", "flv"),
    "wmv2.asf": ("-c:v", "wmv2"),
    "theora.ogv": ("-c:v", "libtheora"),
    "prores.mov": ("-c:v", "prores_ks"),
    "ffv1.mkv": ("-c:v", "ffv1"),
    "still.jpg": ("-frames:v", "1", "-update", "1"),
    "still.png": ("-frames:v", "1", "-update", "1"),
    "still.webp": ("-frames:v", "1", "-update", "1"),
}


def make_films(folder: Path) -> list[Path]:
    """Small films, two seconds each, one of every kind that this ffmpeg can write."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-y", "-v", "error", "-f", "lavfi"]
    command += ["-i", "testsrc2=size=96x64:rate=20:duration=2", "-threads", "1"]
    made = []
    for name, options in FILMS.items():
        path = folder / name
        done = subprocess.run([*command, *options, str(path)], stderr=subprocess.PIPE, check=False)
        if done.returncode:
            print(f"left out: {name}: {done.stderr.decode(errors='replace').strip()[-100:]}")
        else:
            made.append(path)
    return made


def flip_bits(data: bytearray, place: int, draw: random.Random) -> None:
    for _ in range(draw.randrange(1, 9)):
        at = min(len(data) - 1, place + draw.randrange(64))
        data[at] ^= 1 << draw.randrange(8)


def zero(data: bytearray, place: int, draw: random.Random) -> None:
    length = min(draw.randrange(1, 400), len(data) - place)
    data[place : place + length] = bytes(length)


def cut_out(data: bytearray, place: int, draw: random.Random) -> None:
    del data[place : place + draw.randrange(1, 400)]


def double(data: bytearray, place: int, draw: random.Random) -> None:
    data[place:place] = data[place : place + draw.randrange(1, 4000)]


def move(data: bytearray, place: int, draw: random.Random) -> None:
    piece = data[place : place + draw.randrange(1, 400)]
    del data[place : place + len(piece)]
    at = draw.randrange(len(data) + 1)
    data[at:at] = piece


def make_huge(data: bytearray, place: int, draw: random.Random) -> None:
    number = draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"\xff" * 8))
    data[place : place + len(number)] = number


def cut_off(data: bytearray, place: int, draw: random.Random) -> None:
    del data[max(place, 16) :]


MUTATIONS: tuple[Callable[[bytearray, int, random.Random], None], ...] = (
    *(flip_bits, flip_bits, zero, cut_out, double, move, make_huge, cut_off),
)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A copy with one to four mutations; never empty."""
    copy = bytearray(data)
    for _ in range(draw.randrange(1, 5)):
        edge = min(2048, len(copy))
        place = draw.choice(
            (
                draw.randrange(edge),
                len(copy) - 1 - draw.randrange(edge),
                *[draw.randrange(len(copy))] * 2,
            )
        )
        draw.choice(MUTATIONS)(copy, place, draw)
        if len(copy) < 64:
            return bytes(copy) or b"\0"
    return bytes(copy)


def resident_mib() -> tuple[float, float]:
    """Of this process, and of its decoding child (0 where there is none)."""
    process = psutil.Process()
    children = sum(child.memory_info().rss for child in process.children())
    return process.memory_info().rss / 2**20, children / 2**20


def listed(path: Path) -> pa.Table:
    """A sources file of one row."""
    return pa.Table.from_pylist([{"uri": str(path)}], schema=schema(SOURCES))


class Run:
    """One run over many copies.

    Args:
        originals: bytes of the films.
        seed: of all that is drawn.
        keep: where copies that did harm are left.
    """

    def __init__(self, originals: dict[str, bytes], seed: int, keep: Path | None) -> None:
        self._originals = originals
        self._draw = random.Random(seed)
        self._keep = keep
        self.outcomes: Counter[str] = Counter()
        self.slowest_s = 0.0
        self.memory_mib: list[tuple[float, float]] = []

    def round(self, decoding: DecodingPass, folder: Path, first: int, num_files: int) -> None:
        """Decode some copies and read the memory.

        Raises:
            AssertionError: a file became no row.
        """
        for number in range(first, first + num_files):
            name = self._draw.choice(sorted(self._originals))
            path = folder / f"{number:06}-{name}"
            path.write_bytes(mutated(self._originals[name], self._draw))
            start_s = time.monotonic()
            probe = decoding(listed(path))["probe"]
            self.slowest_s = max(self.slowest_s, time.monotonic() - start_s)
            assert probe.num_rows == 1, f"{path} became {probe.num_rows} rows"
            reason = probe["source_reject"][0].as_py() or "decoded"
            self.outcomes[reason] += 1
            if self._keep is not None and reason in ("decoder_died", "too_slow"):
                shutil.copy(path, self._keep)
            path.unlink()
        self.memory_mib.append(resident_mib())


def report(run: Run, num_files: int, wall_s: float) -> None:
    print(f"{num_files} files in {wall_s:.0f} s, the slowest {run.slowest_s:.1f} s")
    for reason, count in run.outcomes.most_common():
        print(f"  {reason}: {count}")
    print("| after files | worker MiB | decoding child MiB |\n| --- | --- | --- |")
    step = max(1, len(run.memory_mib) // 10)
    for place in range(0, len(run.memory_mib), step):
        worker, child = run.memory_mib[place]
        print(f"| {(place + 1) * ROUND} | {worker:.0f} | {child:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--films", type=Path)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="lavie-fuzz-") as scratch:
        folder = Path(scratch)
        films = sorted(arguments.films.iterdir()) if arguments.films else make_films(folder)
        originals = {path.name: path.read_bytes() for path in films if path.is_file()}
        run = Run(originals, arguments.seed, arguments.keep)
        decoding = DecodingPass(DecodeConfig(limits=Limits(timeout_s=TIMEOUT_S)))
        decoding.setup()
        start_s = time.monotonic()
        try:
            for first in range(0, arguments.files, ROUND):
                run.round(decoding, folder, first, min(ROUND, arguments.files - first))
        finally:
            decoding.close()
            report(run, sum(run.outcomes.values()), time.monotonic() - start_s)


if __name__ == "__main__":
    main()

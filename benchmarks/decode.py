"""What the decoding pass costs, against a plain decode of the same file in the same run.

    python benchmarks/decode.py FILE [--rounds 3] [--levers] [--profile] [--against CHECKOUT]

One pass finds cuts, motion, picture statistics, hashes and keyframes. It runs in this process,
without Ray and without the guard, on one thread; `ffmpeg -i FILE -f null -` runs as its own process
with its default of one thread a core. Both alternate; CPU-seconds (user + system) are compared by
their medians. The command of the target decodes sound too, so a decode of the pictures alone is
shown beside it.

--levers compares cheaper ways of decoding: what they cost, and what changes in cuts, scores and
keyframes. --profile says where the rest goes. --against compares with another checkout of this project.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from curation.decode.decoding_pass import DecodeConfig, SourceRows, decode_source

CONFIG = DecodeConfig(threads=1)


def ffmpeg_cpu_s(path: Path, *options: str) -> float:
    """CPU-seconds of one plain decode by the ffmpeg program of imageio-ffmpeg."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", *options]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "-i", str(path), *_outputs(options), "-f", "null", "-"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _outputs(options: tuple[str, ...]) -> list[str]:
    """With `-threads` given the sound is left out too: a decode of the pictures alone."""
    return ["-an"] if options else []


def measured_pass(path: Path, config: DecodeConfig) -> tuple[float, SourceRows]:
    """CPU-seconds and result of one decoding pass in this process."""
    start = time.process_time()
    with path.open("rb") as file:
        rows = decode_source(file, sha256="0" * 64, config=config)
    return time.process_time() - start, rows


def alternate(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Median of each way's CPU-seconds, the ways taking turns."""
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            seen[name].append(run())
    return {name: statistics.median(values) for name, values in seen.items()}


def compare(path: Path, rounds: int) -> None:
    """The figure: CPU-seconds of the pass over those of the plain decode."""
    _, rows = measured_pass(path, CONFIG)  # imports and the file cache are paid for here
    medians = alternate(
        {
            "ffmpeg -i FILE -f null -": lambda: ffmpeg_cpu_s(path),
            "the same, -threads 1 -an": lambda: ffmpeg_cpu_s(path, "-threads", "1"),
            "decoding pass": lambda: measured_pass(path, CONFIG)[0],
        },
        rounds,
    )
    base = medians["ffmpeg -i FILE -f null -"]
    probe = rows.probe
    print(
        f"{path.name}: {probe['source_width']}x{probe['source_height']}, "
        f"{probe['source_num_frames']} frames, {probe['codec']}, {len(rows.scenes)} scenes, "
        f"{sum(len(row['keyframes']) for row in rows.keyframes)} keyframes"
    )
    print("| what | CPU-s | x ffmpeg | ms a frame |\n| --- | --- | --- | --- |")
    for name, cpu_s in medians.items():
        per_frame_ms = cpu_s / probe["source_num_frames"] * 1000
        print(f"| {name} | {cpu_s:.2f} | {cpu_s / base:.2f} | {per_frame_ms:.2f} |")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak resident memory of the pass: {peak_mib:.0f} MiB")


SECOND_PASS = """
import pathlib, runpy, sys
names = runpy.run_path("benchmarks/decode.py")
for _ in range(2):
    cpu_s, _ = names["measured_pass"](pathlib.Path(sys.argv[1]), names["CONFIG"])
print(cpu_s)
"""
"""Run in a checkout: CPU-seconds of a pass whose imports are paid for."""


def compare_checkouts(path: Path, other: Path, rounds: int) -> None:
    """CPU-seconds of this checkout over those of another one, each pass in a process of its own."""

    def cpu_s(checkout: Path) -> float:
        environment = {**os.environ, "PYTHONPATH": str(checkout)}
        command = [sys.executable, "-c", SECOND_PASS, str(path.absolute())]
        return float(subprocess.check_output(command, cwd=checkout, env=environment))

    here = Path(__file__).absolute().parent.parent
    seen = [(cpu_s(here), cpu_s(other.absolute())) for _ in range(rounds)]
    ratio = statistics.median(new / old for new, old in seen)
    least = min(new for new, _ in seen) / min(old for _, old in seen)
    print(f"this over {other}: median of {rounds} rounds {ratio:.3f}, of the least {least:.3f}")


def compare_levers(path: Path, rounds: int) -> None:
    """Each way of skipping the loop filter: its time, and how far its results are from the full."""
    configs = {name: replace(CONFIG, skip_loop_filter=name) for name in ("none", "noref", "all")}
    rows = {name: measured_pass(path, config)[1] for name, config in configs.items()}
    medians = alternate(
        {
            name: lambda config=config: measured_pass(path, config)[0]
            for name, config in configs.items()
        },
        rounds,
    )
    print(
        "| loop filter skipped | x full | spans alike | largest change of a score | keyframe PSNR |"
    )
    print("| --- | --- | --- | --- | --- |")
    for name in configs:
        print(f"| {name} | {medians[name] / medians['none']:.2f} |", end=" ")
        print(*difference(rows["none"], rows[name]), sep=" | ", end=" |\n")


SCORES = ("motion_mean", "brightness_mean", "contrast_mean", "saturation_mean", "sharpness")


def difference(full: SourceRows, other: SourceRows) -> tuple[str, str, str]:
    """Share of spans that are the same; relative change of scores; median and worst PSNR in dB."""
    spans = {(row["start_pts"], row["end_pts"]): place for place, row in enumerate(other.scenes)}
    changes, psnr = dict.fromkeys(SCORES, 0.0), []
    same = 0
    for place, row in enumerate(full.scenes):
        twin = spans.get((row["start_pts"], row["end_pts"]))
        if twin is None:
            continue
        same += 1
        for name in SCORES:
            if row[name]:
                change = abs(other.scenes[twin][name] / row[name] - 1)
                changes[name] = max(changes[name], change)
        pairs = zip(
            full.keyframes[place]["keyframes"], other.keyframes[twin]["keyframes"], strict=True
        )
        psnr += [psnr_db(first, second) for first, second in pairs]
    worst = max(changes, key=lambda name: changes[name])
    return (
        f"{same} of {len(full.scenes)} (it has {len(other.scenes)})",
        f"{worst} {changes[worst]:.1%}",
        f"median {statistics.median(psnr):.1f}, worst {min(psnr):.1f} dB" if psnr else "-",
    )


def psnr_db(first: bytes, second: bytes) -> float:
    """Peak signal-to-noise ratio of two JPEG pictures of one size; 99 for equal ones."""
    first_HWC, second_HWC = (np.asarray(Image.open(BytesIO(d)), float) for d in (first, second))
    squared = float(((first_HWC - second_HWC) ** 2).mean())
    return 99.0 if squared == 0 else 10 * float(np.log10(255**2 / squared))


def profile(path: Path) -> None:
    """Functions by CPU-seconds spent in themselves; the generator `_frames` is the decoder."""
    profiler = cProfile.Profile(time.process_time)
    profiler.runcall(measured_pass, path, CONFIG)
    pstats.Stats(profiler, stream=sys.stdout).sort_stats("tottime").print_stats(25)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--levers", action="store_true")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--against", type=Path)
    arguments = parser.parse_args()
    if arguments.against:
        compare_checkouts(arguments.file, arguments.against, arguments.rounds)
    elif arguments.profile:
        profile(arguments.file)
    elif arguments.levers:
        compare_levers(arguments.file, arguments.rounds)
    else:
        compare(arguments.file, arguments.rounds)


if __name__ == "__main__":
    main()

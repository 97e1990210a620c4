import numpy as np
import pytest

from curation.decode.bars import BLURRED, EVERY, LOOKS, Bars

TURN = EVERY * LOOKS


def picture(rows: slice, columns: slice = slice(0, 256)) -> np.ndarray:
    """144x256, black but for a part."""
    picture_HWC = np.full((144, 256, 3), 14, np.uint8)
    picture_HWC[rows, columns] = 120
    return picture_HWC


def areas(*stretches: tuple[np.ndarray, int]) -> list[object]:
    """The area at the end of each stretch of so many equal pictures."""
    bars, seen = Bars(), []
    for picture_HWC, num in stretches:
        for _ in range(num):
            bars.push(picture_HWC)
        seen.append(bars.area)
    return seen


LETTERBOXED = picture(slice(20, 124))
WHOLE = picture(slice(0, 144))


def test_bars_count_when_they_were_seen_twice():
    inside = slice(20, 124), slice(0, 256)
    assert areas((LETTERBOXED, TURN), (LETTERBOXED, TURN), (LETTERBOXED, 5 * TURN)) == [
        None,
        inside,
        inside,
    ]
    pillars = picture(slice(0, 144), slice(60, 200))
    assert areas((pillars, 2 * TURN)) == [(slice(0, 144), slice(60, 200))]


def test_what_lights_up_outside_ends_them_at_the_next_turn():
    assert areas((LETTERBOXED, 2 * TURN), (WHOLE, TURN))[1] is None
    wider = picture(slice(10, 134))
    assert areas((LETTERBOXED, 2 * TURN), (wider, TURN))[1] == (slice(10, 134), slice(0, 256))


@pytest.mark.parametrize(
    "unlike", [picture(slice(70, 144)), picture(slice(10, 104)), picture(slice(60, 80)), WHOLE]
)
def test_a_dark_sky_a_thin_strip_and_a_whole_picture_have_no_bars(unlike):
    assert areas((unlike, 6 * TURN)) == [None]


def test_black_pictures_say_nothing():
    black = np.zeros((144, 256, 3), np.uint8)
    found = areas((LETTERBOXED, 2 * TURN), (black, 5 * TURN), (LETTERBOXED, TURN))
    assert found[0] == found[1] == found[2] is not None


def between_panels(value: int, panels: tuple[int, int, int], width: int = 80) -> np.ndarray:
    """144x256, a gradient between two panels of one colour."""
    picture_HWC = np.empty((144, 256, 3), np.uint8)
    picture_HWC[:] = panels
    picture_HWC[:, width:-width] = np.linspace(0, value, 256 - 2 * width, dtype=np.uint8)[:, None]
    return picture_HWC


@pytest.mark.parametrize("panels", [(240, 240, 240), (30, 60, 200)])
def test_panels_of_one_colour_are_bars_and_lines_beside_them_too(panels):
    film = between_panels(200, panels)
    assert areas((film, 2 * TURN)) == [
        (slice(0, 144), slice(80 + BLURRED, 256 - 80 - BLURRED)),
    ]


def test_panels_that_change_their_colour_are_no_bars():
    white, red = between_panels(200, (240, 240, 240)), between_panels(200, (20, 20, 200))
    assert areas(*[(white, EVERY), (red, EVERY)] * LOOKS)[-1] is None


def test_a_picture_of_the_panels_colour_says_nothing_and_one_of_another_ends_them():
    panels = (240, 240, 240)
    film, same = between_panels(200, panels), np.full((144, 256, 3), 240, np.uint8)
    before, during, after = areas((film, 2 * TURN), (same, 3 * TURN), (film, TURN))
    assert before == during == after is not None
    assert areas((film, 2 * TURN), (np.full((144, 256, 3), 90, np.uint8), TURN))[-1] is None

"""Which frames of a film make a sample, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.encode_config import EncodeConfig
from training.data.pace import Pace
from training.run_config import SampleConfig


def pace(fps: float, num_frames: int = 4, **changes) -> Pace:
    return Pace(
        **{"num_frames": num_frames, "fps": fps, "name": "even", "tolerance": 0.25} | changes
    )


@pytest.mark.parametrize(
    ("wanted", "film", "stride"),
    [
        (8, 24, 3),
        (8, 23.976, 3),
        (8, 25, 3),
        (8, 30, 4),
        (8, 60, 8),
        (8, 15, 2),
        (8, 10, 1),
        (24, 24, 1),
        (24, 25, 1),
        (24, 30, 1),
        (24, 50, 2),
        (24, 60, 2),
    ],
)
def test_every_step_of_a_sample_is_the_same_number_of_frames(wanted, film, stride) -> None:
    even = pace(wanted)
    assert even.rate(film) == pytest.approx(film / stride)
    for share in (0.0, 0.31, 0.5, 0.999):
        at = np.array(even.times_s({"num_frames": 100, "fps": film}, share)) * film
        assert at == pytest.approx(np.rint(at), abs=1e-6)
        assert np.rint(np.diff(at)).tolist() == [stride] * 3


def test_every_start_that_leaves_room_comes_equally_often() -> None:
    even, film = pace(8), {"num_frames": 14, "fps": 24.0}  # frames 0, 3, 6, 9 to 4, 7, 10, 13
    shares = (np.arange(5000) + 0.5) / 5000
    starts = [round(even.times_s(film, float(share))[0] * 24) for share in shares]
    assert np.bincount(starts).tolist() == [1000] * 5
    assert round(even.times_s(film, 1.0)[0] * 24) == 4  # the last of starts spread evenly


def test_a_film_that_is_just_long_enough_has_one_start() -> None:
    film = {"num_frames": 10, "fps": 24.0}
    assert not pace(8).is_short(10, 24.0)
    assert pace(8).is_short(9, 24.0)
    for share in (0.0, 0.5, 1.0):
        assert np.rint(np.array(pace(8).times_s(film, share)) * 24).tolist() == [0, 3, 6, 9]


def test_the_nearest_frames_keep_the_rate_and_not_the_steps() -> None:
    nearest = pace(24, name="nearest")
    assert nearest.rate([30, 25]).tolist() == [24, 24]
    times = nearest.times_s({"num_frames": 100, "fps": 30.0}, 0.0)
    assert times == pytest.approx([0, 1 / 24, 2 / 24, 3 / 24])


def test_films_whose_rate_cannot_be_met_are_told() -> None:
    films = np.array([12, 15, 18, 20, 24, 30, 33, 60])
    assert films[pace(24).is_far(films)].tolist() == [12, 15, 33]
    assert films[pace(24, tolerance=0.1).is_far(films)].tolist() == [12, 15, 18, 20, 30, 33, 60]
    assert films[pace(24, name="nearest").is_far(films)].tolist() == [12, 15, 18, 20]
    assert not pace(24, num_frames=1).is_far(films).any()


@pytest.mark.parametrize("config", [SampleConfig, EncodeConfig])
def test_settings_say_which_pace(config) -> None:
    made = config(num_frames=5, fps=12.0, pace="nearest", rate_tolerance=0.1)
    assert Pace.of(made) == pace(12.0, 5, name="nearest", tolerance=0.1)
    with pytest.raises(ValueError, match="rate_tolerance must be 0 to below 1, got 1"):
        config(rate_tolerance=1.0)

"""Ids found again, against Python's own counting."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa

from curation.corpus.clip_ids import ClipIds, id_keys


def test_every_id_is_found_once_for_each_time_it_was_given() -> None:
    draw = random.Random(1)
    given = [f"clip-{draw.randrange(60)}" for _ in range(100)]
    asked = [f"clip-{draw.randrange(80)}" for _ in range(200)]
    ids, places = ClipIds(id_keys(pa.array(given))), []
    for begin in range(0, 200, 30):
        places += ids.take(id_keys(pa.array(asked[begin : begin + 30]))).tolist()
    left = Counter(given)
    for name, place in zip(asked, places, strict=True):
        assert (place >= 0) == (left[name] > 0)
        left[name] -= 1
        assert place < 0 or given[place] == name
    found = [place for place in places if place >= 0]
    assert len(found) == len(set(found))


def test_the_first_place_of_an_id_is_given_first() -> None:
    ids = ClipIds(id_keys(pa.array(["a", "b", "a"])))
    assert ids.take(id_keys(pa.array(["a", "a", "a", "c"]))).tolist() == [0, 2, -1, -1]


def test_nothing_is_found_among_no_ids() -> None:
    assert ClipIds(np.empty(0, np.uint64)).take(id_keys(pa.array(["a"]))).tolist() == [-1]

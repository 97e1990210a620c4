"""Groups of look-alikes, against comparing all pairs, and with the real hash on real pictures."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from curation.decode.keyframes import perceptual_hash
from curation.select.dedup import (
    HASHES_PER_CLIP,
    Dedup,
    distances,
    find_groups,
    is_flat,
    mirrored,
)

CONFIG = Dedup()


def random_hashes(rng, count):
    return rng.integers(0, 2**64, size=(count, HASHES_PER_CLIP), dtype=np.uint64)


def flipped(rng, hashes, bits, *, within=64):
    """Each hash with some different bits of its first ``within`` turned."""
    hashes = hashes.copy()
    for index in np.ndindex(hashes.shape):
        for bit in rng.choice(within, size=bits, replace=False).tolist():
            hashes[index] ^= np.uint64(1 << bit)
    return hashes


def full(hashes):
    return np.full(len(hashes), hashes.shape[1], dtype=np.int64)


def groups_of_all_pairs(hashes, lengths, limit):
    """Connected groups by comparing everything with everything, bit by bit."""
    group = list(range(len(hashes)))
    for a in range(len(hashes)):
        for b in range(a):
            if lengths[a] != lengths[b] or lengths[a] == 0:
                continue
            pairs = list(zip(hashes[a, : lengths[a]].tolist(), hashes[b].tolist(), strict=False))
            pairs = [(x, y) for x, y in pairs if not (flat(x) and flat(y))]
            most = limit if lengths[a] > 1 else CONFIG.max_image_distance_bits
            if pairs and sum((x ^ y).bit_count() for x, y in pairs) / len(pairs) <= most:
                old, new = max(group[a], group[b]), min(group[a], group[b])
                group = [new if g == old else g for g in group]
    return [g if group.count(g) > 1 else -1 for g in group]


def flat(value):
    return value.bit_count() < 8 or value.bit_count() > 56


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_pictures=st.integers(1, 12),
    num_clips=st.integers(0, 40),
    bits=st.integers(0, 8),
)
def test_groups_are_those_of_comparing_all_pairs(seed, num_pictures, num_clips, bits):
    rng = np.random.default_rng(seed)
    # Bits change in one half only, so that every near pair shares a band for certain.
    pictures = random_hashes(rng, num_pictures)
    hashes = flipped(rng, pictures[rng.integers(0, num_pictures, num_clips)], bits, within=32)
    lengths = rng.choice([0, 1, 5, 8], size=num_clips)
    found = find_groups(hashes, lengths, config=CONFIG)
    assert found.tolist() == groups_of_all_pairs(hashes, lengths, CONFIG.max_distance_bits)


def test_groups_do_not_depend_on_threads():
    rng = np.random.default_rng(1)
    hashes = flipped(rng, random_hashes(rng, 100)[rng.integers(0, 100, 400)], 2)
    one = find_groups(hashes, full(hashes), config=CONFIG, threads=1)
    assert (one >= 0).sum() > 100
    assert np.array_equal(one, find_groups(hashes, full(hashes), config=CONFIG, threads=4))


def test_a_million_copies_of_one_picture_are_one_group_and_take_no_squared_time():
    hashes = np.repeat(random_hashes(np.random.default_rng(0), 1), 1_000_000, axis=0)
    groups = find_groups(hashes, full(hashes), config=CONFIG)
    assert not groups.any()


def test_random_clips_are_never_grouped():
    hashes = random_hashes(np.random.default_rng(0), 100_000)
    assert (find_groups(hashes, full(hashes), config=CONFIG) == -1).all()


def test_black_clips_are_not_one_group():
    hashes = np.zeros((1000, HASHES_PER_CLIP), dtype=np.uint64)
    hashes[500:] = 2**64 - 1
    assert (find_groups(hashes, full(hashes), config=CONFIG) == -1).all()


def test_frames_that_are_black_in_both_do_not_count():
    rng = np.random.default_rng(0)
    hashes = random_hashes(rng, 2)
    hashes[:, 2:] = 0
    # six equal black frames of eight must not make two different clips look the same
    assert (find_groups(hashes, full(hashes), config=CONFIG) == -1).all()
    hashes[1] = hashes[0]
    assert find_groups(hashes, full(hashes), config=CONFIG).tolist() == [0, 0]


def test_a_picture_is_never_a_look_alike_of_a_video():
    hashes = np.repeat(random_hashes(np.random.default_rng(0), 1), 3, axis=0)
    groups = find_groups(hashes, np.array([1, 8, 1]), config=CONFIG)
    assert groups.tolist() == [0, -1, 0]


def test_no_clip_and_no_hash_give_no_group():
    none = np.zeros((0, HASHES_PER_CLIP), dtype=np.uint64)
    assert find_groups(none, full(none), config=CONFIG).tolist() == []
    some = np.zeros((3, HASHES_PER_CLIP), dtype=np.uint64)
    assert find_groups(some, np.zeros(3, np.int64), config=CONFIG).tolist() == [-1, -1, -1]


def test_distances_are_mean_bits():
    a = np.array([[0xFFFF0000FFFF0000] * 8], dtype=np.uint64)
    assert distances(a, a).tolist() == [0]
    b = a.copy()
    b[0, 0] ^= np.uint64(0b1111)
    assert distances(a, b).tolist() == [0.5]
    assert distances(a, ~a).tolist() == [64]


@pytest.mark.parametrize("value", [-0.1, 17.0])
def test_a_distance_beyond_sense_is_refused(value):
    with pytest.raises(ValueError, match="max_distance_bits must be within"):
        Dedup(max_distance_bits=value)


def test_a_mirrored_copy_is_found_where_asked_for_and_no_other_clip_is():
    rng = np.random.default_rng(5)
    hashes = random_hashes(rng, 40)
    hashes[:, 0] = 0  # every clip begins in black
    hashes[31] = flipped(rng, mirrored(hashes[7:8]), 2)[0]
    hashes[31, 0] = 0
    assert (find_groups(hashes, full(hashes), config=CONFIG) == -1).all()
    groups = find_groups(hashes, full(hashes), config=Dedup(mirrored=True))
    assert np.flatnonzero(groups >= 0).tolist() == [7, 31]
    assert groups[7] == groups[31] == 7


def test_the_real_hash_of_a_mirrored_picture_is_the_mirrored_hash():
    import cv2

    rng = np.random.default_rng(11)
    coarse = rng.integers(0, 256, (8, 12, 16, 3), dtype=np.uint8)
    pictures = [cv2.resize(each, (320, 240), interpolation=cv2.INTER_CUBIC) for each in coarse]
    there = np.array([[perceptual_hash(picture) for picture in pictures]], np.uint64)
    flipped_over = [np.ascontiguousarray(picture[:, ::-1]) for picture in pictures]
    back = np.array([[perceptual_hash(picture) for picture in flipped_over]], np.uint64)
    assert distances(mirrored(there), back)[0] <= 4
    assert distances(there, back)[0] >= 24


# --- the real hash ---


def cloud(seed, size=(320, 180)):
    """A picture with coarse and fine structure."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n * 9 // 16, n, 3), dtype=np.uint8)).resize(
                size, Image.Resampling.BICUBIC
            ),
            dtype=np.float32,
        )
        for n in (4, 16, 64)
    ]
    return np.average(layers, axis=0, weights=[3, 2, 1]).astype(np.uint8)


def coded(picture, *, size, quality):
    """The picture scaled, compressed, and decoded again."""
    buffer = io.BytesIO()
    Image.fromarray(picture).resize(size).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def clip_hashes(pictures):
    return np.array([[perceptual_hash(p) for p in clip] for clip in pictures], dtype=np.uint64)


def test_smaller_and_coarser_codings_of_a_clip_group_and_other_clips_do_not():
    clips = [[cloud(100 * clip + frame) for frame in range(8)] for clip in range(12)]
    versions = [clips]
    for size, quality in (((320, 180), 40), ((160, 90), 30), ((120, 90), 20)):
        versions.append([[coded(p, size=size, quality=quality) for p in clip] for clip in clips])
    hashes = np.concatenate([clip_hashes(version) for version in versions])
    groups = find_groups(hashes, full(hashes), config=CONFIG)
    assert groups.tolist() == list(range(12)) * 4


def test_black_and_grey_pictures_have_flat_hashes():
    values = [np.full((180, 320, 3), level, dtype=np.uint8) for level in (0, 16, 128, 255)]
    assert is_flat(np.array([perceptual_hash(v) for v in values], dtype=np.uint64)).all()
    assert not is_flat(np.array([perceptual_hash(cloud(0))], dtype=np.uint64)).any()

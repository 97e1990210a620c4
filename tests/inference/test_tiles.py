from itertools import pairwise

import pytest
import torch

from inference.tiles import Tiling, blend, fade, spans_of


@pytest.mark.parametrize(
    ("length", "size", "overlap", "expected"),
    [
        (8, 8, 2, [(0, 8)]),
        (5, 8, 2, [(0, 5)]),
        (61, 8, 0, [(start, min(start + 8, 61)) for start in range(0, 61, 8)]),
        (20, 8, 2, [(0, 8), (6, 14), (12, 20)]),
        (15, 8, 2, [(0, 8), (6, 14), (7, 15)]),
    ],
    ids=["one", "short", "release", "even", "shifted-back"],
)
def test_spans_cover_the_length(length, size, overlap, expected):
    assert spans_of(length, size, overlap) == expected


def test_neighbours_share_at_least_the_overlap():
    for length in range(9, 70):
        spans = spans_of(length, 8, 3)
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(a[1] - b[0] >= 3 for a, b in pairwise(spans))
        assert all(stop - start == 8 for start, stop in spans)


def test_a_tile_fades_over_its_overlap_and_never_to_nothing():
    assert torch.allclose(fade(6, 2), torch.tensor([1, 2, 3, 3, 2, 1]) / 3)
    assert torch.equal(fade(3, 0), torch.ones(3))
    assert fade(4, 3).min() > 0


def test_blending_the_pieces_of_one_video_gives_it_back():
    video = torch.randn(2, 3, 9, 10, 12, generator=torch.Generator().manual_seed(1))
    tiles = Tiling(frames=4, frame_overlap=1, height=5, width=6, overlap=2).tiles(9, 10, 12)
    back = blend(lambda tile: tile.of(video), tiles, video.shape, video)
    assert len(tiles) == 3 * 3 * 3
    assert torch.allclose(back, video, atol=1e-6)


def test_a_blend_passes_gradually_from_one_tile_to_the_next():
    like = torch.zeros(1, 1, 6, 1, 1)
    tiles = Tiling(frames=4, frame_overlap=2).tiles(6, 1, 1)
    values = dict(zip([t.spans for t in tiles], (0.0, 1.0), strict=True))
    out = blend(
        lambda tile: torch.full((1, 1, 4, 1, 1), values[tile.spans]), tiles, like.shape, like
    )
    assert torch.allclose(out.flatten(), torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 1]), atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"frames": 0}, "frames of a tile must be at least 1, got 0"),
        ({"frames": 4, "frame_overlap": 4}, r"overlap must be 0 to frames - 1 \(3\), got 4"),
        ({"height": 16, "overlap": 16}, r"overlap must be 0 to height - 1 \(15\), got 16"),
        ({"width": 16, "overlap": -1}, "overlap must be at least 0, got -1"),
    ],
)
def test_tiles_that_cover_nothing_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**fields)

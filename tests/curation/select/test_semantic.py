"""Clips that show the same: against a greedy pass over every pair."""

import numpy as np
import pytest

from curation.select.clusters import Clusters, cluster_clips, find_centres, unit_length
from curation.select.semantic import semantic_duplicates


def put(vectors, num):
    """Clips at every tenth position, in clusters."""
    filled = vectors[vectors.any(axis=1)]
    positions = np.arange(len(vectors)) * 10
    batches = lambda: iter([(positions, vectors)])  # noqa: E731
    return cluster_clips(batches, find_centres(filled, num, seed=0), Clusters(num=num))


def by_every_pair(vectors, clusters, ranked, max_distance):
    """Dropped position -> the kept one that is closest, one clip after the other."""
    kept, dropped = [], {}
    for position in ranked:
        row = position // 10
        near = {
            vectors[row] @ vectors[other // 10]: other
            for other in kept
            if clusters.cluster[other // 10] == clusters.cluster[row] >= 0
        }
        if near and max(near) >= 1 - max_distance:
            dropped[position] = near[max(near)]
        else:
            kept.append(position)
    return dropped


@pytest.mark.parametrize("at_once", [7, 1024])
def test_whatever_is_dropped_is_close_to_a_better_clip_that_stays(monkeypatch, at_once):
    monkeypatch.setattr("curation.select.semantic.COMPARED_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    base = unit_length(rng.normal(size=(30, 24)).astype(np.float32))
    near = [
        unit_length(base + rng.normal(size=base.shape).astype(np.float32) * s) for s in (0.03, 0.06)
    ]
    vectors = np.concatenate([base, *near])
    clusters = put(vectors, 3)
    ranked = rng.permutation(90)[:80] * 10  # ten are not asked: other rules dropped them
    found = semantic_duplicates(clusters, ranked, 0.05)
    expected = by_every_pair(vectors, clusters, ranked.tolist(), 0.05)
    assert dict(found.tolist()) == expected
    assert 20 <= len(expected) <= 60
    assert (np.diff(found[:, 0]) > 0).all()


def test_of_a_chain_of_small_steps_both_ends_stay():
    angles = np.linspace(0, np.pi / 2, 13)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    step = 1 - np.cos(np.pi / 24)
    found = semantic_duplicates(put(vectors, 1), np.arange(13) * 10, 1.05 * step)
    assert dict(found.tolist()) == {10 * n: 10 * (n - 1) for n in range(1, 13, 2)}


def test_a_clip_without_embedding_shows_nothing_and_stays():
    vectors = np.zeros((4, 2), np.float32)
    vectors[1:3] = 1 / np.sqrt(2)
    found = semantic_duplicates(put(vectors, 1), np.array([0, 30, 20, 10]), 0.1)
    assert found.tolist() == [[10, 20]]

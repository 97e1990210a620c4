"""Clusters of embeddings against planted ones, neighbours against every pair."""

import numpy as np
import pytest

from curation.select.clusters import (
    NEIGHBOURS,
    Clusters,
    centres_of,
    centres_table,
    cluster_clips,
    few_of_each,
    find_centres,
    nearest,
    neighbours,
    unit_length,
)


def planted(rng, num, each, width=32, spread=0.05):
    """Clips around directions that stand at right angles to each other, and which is whose."""
    directions, _ = np.linalg.qr(rng.normal(size=(width, width)))
    which = rng.permutation(np.repeat(np.arange(num), each))
    noise = rng.normal(size=(num * each, width)) * spread
    return unit_length((directions[which] + noise).astype(np.float32)), which


def test_planted_clusters_are_found_and_a_centre_is_the_mean_direction_of_its_clips():
    vectors, which = planted(np.random.default_rng(0), num=6, each=50)
    centres = find_centres(vectors, 6, seed=1)
    number, cosine = nearest(vectors, centres)
    assert {(a, b) for a, b in zip(number.tolist(), which.tolist(), strict=True)}.__len__() == 6
    for own in range(6):
        mean = vectors[number == own].mean(axis=0)
        np.testing.assert_allclose(centres[own], mean / np.linalg.norm(mean), atol=1e-5)
    np.testing.assert_allclose(cosine, (vectors * centres[number]).sum(axis=1), atol=1e-5)


def test_centres_are_a_function_of_sample_and_seed_and_never_more_than_clips():
    vectors, _ = planted(np.random.default_rng(2), num=4, each=5)
    assert np.array_equal(find_centres(vectors, 7, seed=3), find_centres(vectors, 7, seed=3))
    assert find_centres(vectors, 100, seed=0).shape == (20, 32)
    same = np.repeat(vectors[:1], 9, axis=0)
    assert find_centres(same, 3, seed=0).shape == (3, 32)
    assert np.array_equal(centres_of(centres_table(vectors)), vectors)


def test_neighbours_are_all_close_pairs_of_a_cluster(monkeypatch):
    monkeypatch.setattr("curation.select.clusters.COMPARED_AT_ONCE", 16)
    rng = np.random.default_rng(4)
    base = unit_length(rng.normal(size=(40, 24)).astype(np.float32))
    near = unit_length(base + rng.normal(size=(40, 24)).astype(np.float32) * 0.02)
    vectors = rng.permutation(np.concatenate([base, near]))
    centre = unit_length(vectors.mean(axis=0, keepdims=True))
    found = np.concatenate(list(neighbours(vectors, (vectors @ centre.T)[:, 0], 0.05)))
    cosines = vectors @ vectors.T
    expected = {(i, j) for i in range(80) for j in range(i + 1, 80) if cosines[i, j] >= 0.95}
    assert {tuple(sorted(pair)) for pair in found.tolist()} == expected
    assert len(expected) >= 40


def test_a_thousand_copies_hold_together_by_few_pairs():
    vectors = np.repeat(unit_length(np.ones((1, 8), np.float32)), 1000, axis=0)
    found = np.concatenate(
        [few_of_each(pairs) for pairs in neighbours(vectors, np.ones(1000, np.float32), 0.02)]
    )
    assert len(found) <= NEIGHBOURS * 1000
    linked = np.zeros(1000, bool)
    linked[found] = True
    assert linked.all()


def test_a_clip_without_embedding_is_in_no_cluster_and_pairs_stay_within_one():
    rng = np.random.default_rng(5)
    vectors, which = planted(rng, num=3, each=20, spread=0.01)
    vectors[7] = 0
    positions = np.arange(60) * 10
    centres = find_centres(np.delete(vectors, 7, axis=0), 3, seed=0)

    def batches():
        for begin in range(0, 60, 25):
            yield positions[begin : begin + 25], vectors[begin : begin + 25]

    found = cluster_clips(batches, centres, Clusters(num=3, neighbour_distance=0.05))
    assert found.of(np.array([70, 75])).tolist() == [-1, -1]
    assert np.isnan(found.distance[7])
    assert np.isfinite(np.delete(found.distance, 7)).all()
    pairs = found.pairs // 10
    assert (which[pairs[:, 0]] == which[pairs[:, 1]]).all()
    assert 7 not in pairs
    assert set(pairs.ravel().tolist()) == set(range(60)) - {7}


def test_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match="clusters num must be at least 0, got -1"):
        Clusters(num=-1)
    with pytest.raises(ValueError, match="neighbour_distance must be within"):
        Clusters(neighbour_distance=1.5)

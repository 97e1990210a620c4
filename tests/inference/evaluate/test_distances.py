"""Distances, against closed forms and second implementations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from inference.evaluate.distances import (
    bootstrap,
    counted_statistics,
    frechet_distance,
    kernel_distance,
)
from inference.evaluate.statistics import FeatureStatistics, Gaussian


def gaussian(seed: int, width: int) -> Gaussian:
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((width, width))
    return Gaussian(generator.standard_normal(width), root @ root.T)


def test_equal_gaussians_are_at_distance_zero() -> None:
    first = gaussian(0, 8)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-10)


def test_one_dimension_is_difference_of_means_and_of_deviations_squared() -> None:
    # Dowson and Landau: (m1 - m2)^2 + (s1 - s2)^2.
    first = Gaussian(np.array([1.0]), np.array([[4.0]]))
    second = Gaussian(np.array([4.0]), np.array([[25.0]]))
    assert frechet_distance(first, second) == pytest.approx(3**2 + (5 - 2) ** 2)


def test_commuting_covariances_sum_over_their_axes() -> None:
    variances1, variances2 = np.array([1.0, 4.0, 0.0]), np.array([9.0, 0.0, 2.25])
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]
    first = Gaussian(np.zeros(3), turn @ np.diag(variances1) @ turn.T)
    second = Gaussian(np.zeros(3), turn @ np.diag(variances2) @ turn.T)
    expected = ((np.sqrt(variances1) - np.sqrt(variances2)) ** 2).sum()
    assert frechet_distance(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("width", [2, 17, 64])
def test_any_covariances_give_what_scipys_matrix_root_gives(width: int) -> None:
    first, second = gaussian(2, width), gaussian(3, width)
    root = scipy.linalg.sqrtm(first.covariance @ second.covariance).real
    expected = (
        ((first.mean - second.mean) ** 2).sum()
        + np.trace(first.covariance)
        + np.trace(second.covariance)
        - 2 * np.trace(root)
    )
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_fewer_items_than_features_need_no_epsilon() -> None:
    # All items of both sets on one line: the distance is that of the one dimension.
    generator = np.random.default_rng(4)
    line = generator.standard_normal(100)
    line /= np.linalg.norm(line)
    x, y = generator.standard_normal(5), 3 + 2 * generator.standard_normal(7)
    first = FeatureStatistics.of(np.outer(x, line)).gaussian()
    second = FeatureStatistics.of(np.outer(y, line)).gaussian()
    expected = (x.mean() - y.mean()) ** 2 + (x.std(ddof=1) - y.std(ddof=1)) ** 2
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_two_pairs_is_the_sum_by_hand() -> None:
    # D = 1, k(a, b) = (a b + 1)^3; x = 0, 1; y = 1, 2:
    # k(x, x') = 1, k(y, y') = 27, k(x, y) = 1, 1, 8, 27.
    expected = 1 + 27 - 2 * (1 + 1 + 8 + 27) / 4
    assert kernel_distance(np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])) == expected


def test_kernel_distance_equals_the_sum_over_pairs_of_different_items() -> None:
    generator = np.random.default_rng(5)
    x_MD, y_ND = generator.standard_normal((9, 4)), generator.standard_normal((7, 4)) + 0.5

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 4 + 1) ** 3)

    within = [
        np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])
        for s in (x_MD, y_ND)
    ]
    expected = sum(within) - 2 * np.mean([k(a, b) for a in x_MD for b in y_ND])
    assert kernel_distance(x_MD, y_ND) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    # Over many draws of both sets from one distribution its mean is zero, within four errors.
    generator = np.random.default_rng(6)
    values = [
        kernel_distance(generator.standard_normal((10, 3)), generator.standard_normal((12, 3)))
        for _ in range(1000)
    ]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_more_rows_than_a_block_change_nothing() -> None:
    x_MD = np.random.default_rng(7).standard_normal((1500, 2))
    products = (x_MD @ x_MD.T / 2 + 1) ** 3
    within = (products.sum() - np.trace(products)) / (1500 * 1499)
    y_ND = x_MD[:2] + 1
    pair = float((y_ND[0] @ y_ND[1] / 2 + 1) ** 3)
    across = ((x_MD @ y_ND.T / 2 + 1) ** 3).mean()
    assert kernel_distance(x_MD, y_ND) == pytest.approx(within + pair - 2 * across, rel=1e-10)


def test_counts_stand_for_repeated_items() -> None:
    x_ND = np.random.default_rng(8).standard_normal((4, 3))
    counts_N = np.array([2, 0, 1, 3])
    counted = counted_statistics(x_ND, counts_N).gaussian()
    repeated = np.repeat(x_ND, counts_N, axis=0)
    np.testing.assert_allclose(counted.mean, repeated.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(counted.covariance, np.cov(repeated.T), rtol=1e-12)


def test_bootstrap_of_a_mean_has_the_textbook_standard_error() -> None:
    x_N = np.random.default_rng(9).standard_normal(400)
    confidence = bootstrap(
        x_N.mean(), lambda counts: counts @ x_N / 400, num_items=400, resamples=2000, seed=0
    )
    assert confidence is not None
    error = x_N.std() / np.sqrt(400)
    assert confidence.standard_error == pytest.approx(error, rel=0.06)
    assert confidence.low == pytest.approx(x_N.mean() - 1.96 * error, abs=0.3 * error)
    assert confidence.high == pytest.approx(x_N.mean() + 1.96 * error, abs=0.3 * error)


def test_bootstrap_draws_the_same_for_the_same_seed_and_nothing_when_not_wanted() -> None:
    def score(counts_N: np.ndarray) -> float:
        return float(counts_N[0])

    first, again = (bootstrap(1.0, score, num_items=5, resamples=9, seed=3) for _ in range(2))
    assert first == again
    assert bootstrap(1.0, score, num_items=5, resamples=0, seed=3) is None

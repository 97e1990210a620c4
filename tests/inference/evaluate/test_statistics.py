"""Statistics of features, against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from inference.evaluate.statistics import FeatureStatistics


def features(seed: int, count: int = 50, width: int = 6) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, width)) @ generator.standard_normal((width, width))


def test_statistics_are_numpys_mean_and_covariance() -> None:
    x_ND = features(0)
    gaussian = FeatureStatistics.of(x_ND).gaussian()
    np.testing.assert_allclose(gaussian.mean, x_ND.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(gaussian.covariance, np.cov(x_ND.T), rtol=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 3, 1, 0)])
def test_pieces_merge_to_the_whole_in_any_order(order: tuple[int, ...]) -> None:
    x_ND = features(1)
    pieces = np.split(x_ND, [3, 4, 30])
    merged = FeatureStatistics.empty(6)
    for index in order:
        merged = merged.merge(FeatureStatistics.of(pieces[index]))
    assert merged.count == 50
    np.testing.assert_allclose(merged.mean, x_ND.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(merged.gaussian().covariance, np.cov(x_ND.T), rtol=1e-11)


def test_a_large_mean_costs_no_digits_of_the_covariance() -> None:
    x_ND = features(2)
    merged = FeatureStatistics.of(x_ND[:20] + 1e6).merge(FeatureStatistics.of(x_ND[20:] + 1e6))
    np.testing.assert_allclose(merged.gaussian().covariance, np.cov(x_ND.T), rtol=1e-7)


def test_single_precision_features_are_summed_in_double_precision() -> None:
    x_ND = np.full((100_000, 1), 0.1, np.float32)
    mean = FeatureStatistics.of(x_ND).mean[0]
    assert mean == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_one_item_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="at least 2 items, got 1"):
        FeatureStatistics.of(features(3, count=1)).gaussian()


def test_widths_must_agree() -> None:
    with pytest.raises(ValueError, match="one width, got 6 and 5"):
        FeatureStatistics.of(features(0)).merge(FeatureStatistics.of(features(0, width=5)))


def test_a_feature_that_is_no_number_is_refused() -> None:
    x_ND = features(0)
    x_ND[4, 2] = np.nan
    with pytest.raises(ValueError, match="finite"):
        FeatureStatistics.of(x_ND)

"""Distances between two sets of features, and how sure they are.

Shape letters: M, N items, D width of a feature. All arithmetic is float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inference.evaluate.statistics import FeatureStatistics, Gaussian, Matrix

KERNEL_DEGREE = 3  # of the polynomial kernel, arXiv 1801.01401 section 4
BLOCK_ROWS = 1024  # of a kernel matrix held at once: 1024 x 10,000 float64 are 80 MB
CONFIDENCE = 0.95


def _root(symmetric_DD: Matrix) -> Matrix:
    """R with R R^T = the matrix; eigenvalues that rounding made negative count as zero."""
    values_D, vectors_DD = np.linalg.eigh(symmetric_DD)
    return vectors_DD * np.sqrt(values_D.clip(min=0))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Frechet distance of the two Gaussians with these means and covariances.

    |m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))   (Dowson and Landau 1982; FVD: arXiv 1812.01717).

    With roots S = R R^T the last trace is the sum of singular values of R1^T R2. So singular
    covariances (fewer videos than features) need no epsilon, and no complex numbers appear.

    Returns:
        At least 0; 0 for equal statistics, up to rounding.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"features must have one width, got {len(first.mean)} and {len(second.mean)}"
        )
    step_D = first.mean - second.mean
    root1_DD, root2_DD = _root(first.covariance), _root(second.covariance)
    overlap = np.linalg.svd(root1_DD.T @ root2_DD, compute_uv=False).sum()
    spread = np.trace(first.covariance) + np.trace(second.covariance)
    return max(0.0, float(step_D @ step_D + spread - 2 * overlap))


def _kernel_sum(x_MD: Matrix, y_ND: Matrix) -> float:
    """Sum of (x.y / D + 1)^3 over all pairs, a block of rows at a time."""
    width = x_MD.shape[1]
    return float(
        sum(
            ((x_MD[start : start + BLOCK_ROWS] @ y_ND.T / width + 1) ** KERNEL_DEGREE).sum()
            for start in range(0, len(x_MD), BLOCK_ROWS)
        )
    )


def _kernel_diagonal(x_MD: Matrix) -> float:
    return float((((x_MD**2).sum(axis=1) / x_MD.shape[1] + 1) ** KERNEL_DEGREE).sum())


def kernel_distance(x_MD: NDArray[np.floating], y_ND: NDArray[np.floating]) -> float:
    """Squared maximum mean discrepancy, unbiased, with the kernel (x.y / D + 1)^3.

    KVD of arXiv 1812.01717, with the estimator of arXiv 1206.2794 (Gretton et al. 2012), equation 3:
    mean of k(x, x') + mean of k(y, y') - 2 mean of k(x, y), pairs of an item with itself left out.

    Args:
        x_MD: Features, M >= 2.
        y_ND: Features, N >= 2; D may not differ.

    Returns:
        Around 0 for sets from one distribution, so it may be negative.
    """
    x, y = np.asarray(x_MD, np.float64), np.asarray(y_ND, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"features must be [M, D] and [N, D] with M, N >= 2, got {x.shape} and {y.shape}"
        )
    m, n = len(x), len(y)
    within_x = (_kernel_sum(x, x) - _kernel_diagonal(x)) / (m * (m - 1))
    within_y = (_kernel_sum(y, y) - _kernel_diagonal(y)) / (n * (n - 1))
    return within_x + within_y - 2 * _kernel_sum(x, y) / (m * n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """What a bootstrap says of a score."""

    resamples: int
    """Sets of videos drawn with replacement, each as large as the set itself."""
    seed: int
    """Seed of the draws."""
    standard_error: float
    """Standard deviation of the score over the resamples."""
    low: float
    """Lower end of the basic (reversed percentile) 95 % interval: 2 score - quantile."""
    high: float
    """Upper end."""


def bootstrap(
    score: float,
    score_of_counts: Callable[[NDArray[np.int64]], float],
    *,
    num_items: int,
    resamples: int,
    seed: int,
) -> Confidence | None:
    """Confidence of a score by resampling its items.

    A resample has fewer different items than the set, which raises a Frechet distance; the basic
    interval (Davison and Hinkley 1997, equation 5.6) turns this bias back, the percentile one would not.

    Args:
        score: Score of the set.
        score_of_counts: Score of the set with item i taken ``counts_N[i]`` times.
        num_items: N.
        resamples: How many to draw; 0 for none.
        seed: Of the draws.

    Returns:
        None where no resamples are wanted.
    """
    if resamples < 1:
        return None
    generator = np.random.default_rng(seed)
    draws = generator.multinomial(num_items, np.full(num_items, 1 / num_items), size=resamples)
    scores = np.array([score_of_counts(counts_N) for counts_N in draws])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(scores, [1 - tail, tail])
    return Confidence(
        resamples=resamples,
        seed=seed,
        standard_error=float(scores.std(ddof=1)) if resamples > 1 else 0.0,
        low=float(2 * score - low),
        high=float(2 * score - high),
    )


def counted_statistics(
    features_ND: NDArray[np.floating], counts_N: NDArray[np.int64]
) -> FeatureStatistics:
    """Statistics of a set in which item i occurs ``counts_N[i]`` times."""
    features = np.asarray(features_ND, np.float64)
    total = int(counts_N.sum())
    mean_D = counts_N @ features / total
    deviation_ND = (features - mean_D) * np.sqrt(counts_N)[:, None]
    return FeatureStatistics(total, mean_D, deviation_ND.T @ deviation_ND)

"""Mean and covariance of features, gathered in one pass and merged from pieces.

Shape letters: N items (videos), D width of a feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


class Gaussian(NamedTuple):
    """What a Frechet distance compares: a mean ``[D]`` and a covariance ``[D, D]``, float64."""

    mean: Matrix
    covariance: Matrix


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """Count, mean and scatter of features, all that a Frechet distance needs of them.

    The scatter is the sum of (x - mean)(x - mean)^T. Pieces merge by Chan, Golub and LeVeque's rule
    (The American Statistician 37, 1983, equation 2.1 in several dimensions), which does not lose digits as
    sums of squares do.
    """

    count: int
    """N, items seen."""
    mean: Matrix
    """Mean ``[D]``, float64."""
    scatter: Matrix
    """Sum of outer products of deviations from the mean ``[D, D]``, float64."""

    def __post_init__(self) -> None:
        """Raise ValueError where the shapes contradict each other."""
        width = self.mean.shape[0] if self.mean.ndim == 1 else -1
        if self.count < 0 or self.scatter.shape != (width, width):
            raise ValueError(
                f"statistics must be a count, a mean [D] and a scatter [D, D], got {self.count}, "
                f"{self.mean.shape} and {self.scatter.shape}"
            )
        if not (np.isfinite(self.mean).all() and np.isfinite(self.scatter).all()):
            raise ValueError("features must be finite numbers, got NaN or infinity")

    @classmethod
    def empty(cls, width: int) -> FeatureStatistics:
        """Statistics of no items; merging them changes nothing."""
        return cls(0, np.zeros(width), np.zeros((width, width)))

    @classmethod
    def of(cls, features_ND: NDArray[np.floating]) -> FeatureStatistics:
        """Statistics of a block of features, computed in float64."""
        if features_ND.ndim != 2 or features_ND.shape[0] == 0:
            raise ValueError(f"features must be [N, D] with N >= 1, got {features_ND.shape}")
        block_ND = np.asarray(features_ND, np.float64)
        mean_D = block_ND.mean(axis=0)
        deviation_ND = block_ND - mean_D
        return cls(len(block_ND), mean_D, deviation_ND.T @ deviation_ND)

    def merge(self, other: FeatureStatistics) -> FeatureStatistics:
        """Statistics of the items of both."""
        if self.mean.shape != other.mean.shape:
            raise ValueError(
                f"features must have one width, got {len(self.mean)} and {len(other.mean)}"
            )
        if not self.count or not other.count:
            return self if self.count else other
        total = self.count + other.count
        step_D = other.mean - self.mean
        between = np.outer(step_D, step_D) * (self.count * other.count / total)
        return FeatureStatistics(
            total,
            self.mean + step_D * (other.count / total),
            self.scatter + other.scatter + between,
        )

    def gaussian(self) -> Gaussian:
        """Mean and unbiased covariance.

        Raises:
            ValueError: There are fewer than two items.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 items, got {self.count}")
        return Gaussian(self.mean, self.scatter / (self.count - 1))

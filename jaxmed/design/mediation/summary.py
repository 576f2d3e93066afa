"""What the design needs to know of a column: a few figures per cluster, from rows in memory or from an engine's sums."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from jaxmed.design.mediation.rebuild import cluster_means

# Relative to the column's standard deviation. Cluster means of a variable that was centred and then rounded to
# six decimals still count as 0; means of a variable that was not are far larger than this by chance alone.
WITHIN_TOLERANCE = 1e-8
BETWEEN_TOLERANCE = 1e-5
ROUNDING = 64 * np.finfo(float).eps  # of the largest absolute value
TWO_VALUED_TOLERANCE = 1e-13  # of the squared range, per row: what rounding leaves of 0


@dataclass(frozen=True)
class Summary:
    """One column by cluster, arrays (J,) over its observed rows; NaN, and 0 in ``count``, where a cluster has none."""

    count: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    squares: np.ndarray  # sum of squares about the cluster's mean

    @property
    def n(self) -> int:
        """Observed rows."""
        return int(self.count.sum())

    @property
    def minimum(self) -> float:
        return float(np.nanmin(self.low))

    @property
    def maximum(self) -> float:
        return float(np.nanmax(self.high))

    @property
    def largest(self) -> float:
        return max(abs(self.minimum), abs(self.maximum))

    @property
    def row_mean(self) -> float:
        """The mean over rows."""
        origin = np.nanmean(self.mean)  # a large origin costs digits in the sum
        known = self.count > 0
        return float(origin + self.count[known] @ (self.mean[known] - origin) / self.n)

    @property
    def total_squares(self) -> float:
        """The sum of squares about the mean over rows."""
        known = self.count > 0
        return float(self.squares[known].sum() + self.count[known] @ (self.mean[known] - self.row_mean) ** 2)

    @property
    def spread(self) -> float:
        """The standard deviation over rows, with n."""
        return float(np.sqrt(self.total_squares / self.n))

    @property
    def varying(self) -> np.ndarray:
        """In which clusters (J,), by more than rounding."""
        within = np.nan_to_num(np.maximum(self.high - self.mean, self.mean - self.low))
        return within > max(WITHIN_TOLERANCE * self.spread, ROUNDING * self.largest)

    @property
    def varies(self) -> bool:
        """Within at least one cluster."""
        return bool(self.varying.any())

    @property
    def differs(self) -> bool:
        """Whether cluster means differ."""
        between = np.nanmax(self.mean) - np.nanmin(self.mean)
        return bool(between > max(BETWEEN_TOLERANCE * self.spread, ROUNDING * self.largest))

    @property
    def grand(self) -> float:
        """The mean over rows, or over clusters of a column that is constant within them."""
        if self.varies:
            return self.row_mean
        origin = np.nanmean(self.mean)
        return float(origin + np.nanmean(self.mean - origin))

    @property
    def two_valued(self) -> bool:
        """Every row has the smallest or the largest value: then, and only then, the mean of (x - low)(high - x) is 0."""
        low, high, mean = self.minimum, self.maximum, self.row_mean
        inner = (mean - low) * (high - mean) - self.total_squares / self.n
        width = high - low
        return width > 0 and inner <= width * max(TWO_VALUED_TOLERANCE * width, ROUNDING * self.largest)

    def carried(self, rows: np.ndarray) -> Summary:
        """The summary once every cluster's value stands in all of its ``rows`` (J,); of a column constant within clusters."""
        return replace(self, count=np.where(self.count > 0, rows, 0))

    def deviation(self, of: str) -> float:
        """The standard deviation with n - 1 over "rows" or "clusters"."""
        if of == "rows":
            return float(np.sqrt(self.total_squares / (self.n - 1)))
        return float(self.mean[self.count > 0].std(ddof=1))


def summarise(values: np.ndarray, codes: np.ndarray, n_clusters: int) -> Summary:
    """The summary of a column in memory: (n,) values, NaN where missing, in clusters ``codes``."""
    origin = np.nanmean(values)  # a large origin costs digits in the sums
    shifted = values - origin
    means = cluster_means(shifted, codes, n_clusters)
    known = ~np.isnan(values)
    at = codes[known]
    count = np.bincount(at, minlength=n_clusters)
    squares = np.bincount(at, (shifted[known] - means[at]) ** 2, minlength=n_clusters)
    low, high = np.full(n_clusters, np.inf), np.full(n_clusters, -np.inf)
    np.minimum.at(low, at, values[known])
    np.maximum.at(high, at, values[known])
    empty = count == 0
    low[empty] = high[empty] = squares[empty] = np.nan
    return Summary(count, means + origin, low, high, squares)

"""What the data are like before any model: counts, means, spread, intraclass correlations, correlations at both levels."""

from __future__ import annotations

import numpy as np
import pandas as pd

HEADERS = {"level": "Level", "n": "n", "mean": "M", "sd": "SD", "minimum": "Min", "maximum": "Max", "icc": "ICC"}


def two(value: float) -> str:
    """A correlation with two decimals and no leading zero.

    Example:
        >>> two(-0.123), two(1.0)
        ('-.12', '1.00')
    """
    text = f"{value:.2f}"
    return text.replace("0.", ".", 1) if abs(value) < 0.995 else text


def table(columns: pd.DataFrame, clusters: pd.Series) -> pd.DataFrame:
    """A row per variable: level, n (rows, or clusters of a variable of level 2), mean, sd, minimum, maximum, icc.

    ``columns`` are numbers over rows, ``clusters`` the labels beside them. The intraclass correlation is that of the analysis of
    variance, (MS_b - MS_w) / (MS_b + (n0 - 1) MS_w), below 0 where clusters differ less than by chance.
    """
    rows = []
    for name in columns:
        known = pd.DataFrame({"v": columns[name].astype(float), "g": clusters}).dropna()
        upper = bool((known.groupby("g")["v"].transform("max") == known.groupby("g")["v"].transform("min")).all())
        values = known.groupby("g")["v"].first() if upper else known["v"]
        rows.append(
            {
                "variable": str(name),
                "level": 2 if upper else 1,
                "n": len(values),
                "mean": values.mean(),
                "sd": values.std(),
                "minimum": values.min(),
                "maximum": values.max(),
                "icc": np.nan if upper else _icc(known),
            }
        )
    return pd.DataFrame(rows)


def _icc(known: pd.DataFrame) -> float:
    sizes = known.groupby("g")["v"].size().to_numpy(float)
    N, J = sizes.sum(), len(sizes)
    if J < 2 or N <= J:
        return np.nan
    means = known.groupby("g")["v"].transform("mean")
    between = float(((means - known["v"].mean()) ** 2).sum()) / (J - 1)
    within = float(((known["v"] - means) ** 2).sum()) / (N - J)
    n0 = (N - (sizes**2).sum() / N) / (J - 1)
    total = between + (n0 - 1) * within
    return (between - within) / total if total > 0 else np.nan


def correlations(columns: pd.DataFrame, clusters: pd.Series) -> pd.DataFrame:
    """Correlations of pairs: of deviations from cluster means above the diagonal, of cluster means below it.

    Columns are numbered as the rows. Over the rows where both are known; a variable of level 2 has none within clusters.
    """
    numbers = [str(k) for k in range(1, columns.shape[1] + 1)]
    out = pd.DataFrame(np.nan, index=range(len(numbers)), columns=["variable", *numbers]).astype(object)
    out["variable"] = [str(name) for name in columns]
    for i, one in enumerate(columns):
        for j, two in enumerate(columns):
            if i >= j:
                continue
            pair = pd.DataFrame({"a": columns[one].astype(float), "b": columns[two].astype(float), "g": clusters}).dropna()
            means = pair.groupby("g")[["a", "b"]].transform("mean")
            left = pair[["a", "b"]] - means
            out.iloc[i, j + 1] = _correlation(left["a"], left["b"])
            each = pair.groupby("g")[["a", "b"]].mean()
            out.iloc[j, i + 1] = _correlation(each["a"], each["b"])
    return out


def _correlation(a: pd.Series, b: pd.Series) -> float:
    size = np.sqrt(float((a - a.mean()) @ (a - a.mean())) * float((b - b.mean()) @ (b - b.mean())))
    # deviations of what is constant within clusters are rounding
    if len(a) < 3 or size <= 1e-12 * (1 + len(a) * abs(float(a.abs().max() * b.abs().max()))):
        return np.nan
    return float((a - a.mean()) @ (b - b.mean())) / size

"""What the data are like before any model: counts, means, spread, intraclass correlations, correlations at both levels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxmed.report import document, names
from jaxmed.report.result import Section

ICC = "ICC: intraclass correlation, of the analysis of variance."
DIGITS = dict.fromkeys(("mean", "sd", "minimum", "maximum"), ".2f")
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
        v, g = _known(columns, [name], clusters)
        values = v[:, 0]
        first = np.full(g.max(initial=-1) + 1, np.nan)
        first[g[::-1]] = values[::-1]
        upper = bool((values == first[g]).all())
        own = first if upper else values
        rows.append(
            {
                "variable": str(name),
                "level": 2 if upper else 1,
                "n": len(own),
                "mean": own.mean() if len(own) else np.nan,
                "sd": own.std(ddof=1) if len(own) > 1 else np.nan,
                "minimum": own.min(initial=np.inf) if len(own) else np.nan,
                "maximum": own.max(initial=-np.inf) if len(own) else np.nan,
                "icc": np.nan if upper else _icc(values, g),
            }
        )
    return pd.DataFrame(rows)


def crossed_table(columns: pd.DataFrame, groups: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """As :func:`table`, of several grouping factors; ``groups`` (n,) number the groups of each, and no value is missing.

    ``level`` is the factor, of fewest groups, within whose groups a variable is constant, of which n then counts the groups;
    "rows" where there is none. Variables of rows have an intraclass correlation for each factor, "icc_school".
    """
    rows = []
    sizes = {group: int(codes.max(initial=-1)) + 1 for group, codes in groups.items()}
    for name in columns:
        values = columns[name].to_numpy(float)
        per = {}
        for group, codes in groups.items():
            per[group] = np.full(sizes[group], np.nan)
            per[group][codes] = values
        constant = [group for group, codes in groups.items() if (values == per[group][codes]).all()]
        level = min(constant, key=lambda group: sizes[group], default=None)
        own = values if level is None else per[level]
        row = {"variable": str(name), "level": "rows" if level is None else level, "n": len(own), "mean": own.mean()}
        row |= {"sd": own.std(ddof=1) if len(own) > 1 else np.nan, "minimum": own.min(), "maximum": own.max()}
        rows.append(row | {f"icc_{g}": _icc(values, codes) if level is None else np.nan for g, codes in groups.items()})
    return pd.DataFrame(rows)


def sizes_in_words(groups: Mapping[str, np.ndarray]) -> list[str]:
    """How many rows the groups of every factor have."""
    said = []
    for group, codes in groups.items():
        n = np.bincount(codes)
        rows = f"{n[0]:,} rows each" if n.min() == n.max() else f"{n.min():,} to {n.max():,} rows (mean {n.mean():.1f})"
        said.append(f"{names.column(group)}: {len(n):,} groups of {rows}.")
    return said


def section(about: pd.DataFrame, pairs: pd.DataFrame | None, notes: Sequence[str]) -> Section:
    """The section of a report: the table of variables, and where there are two levels their correlations."""
    about.attrs["notes"] = list(notes)
    several = {name: f"ICC ({names.column(str(name)[4:])})" for name in about if str(name).startswith("icc_")}
    formats = DIGITS | dict.fromkeys(("icc", *several), ".2f")
    if several:
        about["level"] = [names.column(level) for level in about["level"].tolist()]
    inside = [document.table("Variables", about, formats=formats, headers=HEADERS | several)]
    if pairs is not None:
        pairs.attrs["notes"] = ["Above the diagonal within clusters, below it between clusters (of cluster means)."]
        twos = {str(name): two for name in pairs.columns[1:]}
        pairs["variable"] = [f"{k}. {names.column(name)}" for k, name in enumerate(pairs["variable"].tolist(), 1)]
        inside.append(document.table("Correlations within and between clusters", pairs, formats=twos, headers={"variable": ""}))
    return "Descriptive statistics", inside


def correlations(columns: pd.DataFrame, clusters: pd.Series) -> pd.DataFrame:
    """Correlations of pairs: of deviations from cluster means above the diagonal, of cluster means below it.

    Columns are numbered as the rows. Over the rows where both are known; a variable of level 2 has none within clusters.
    """
    names, n = list(columns), columns.shape[1]
    found = np.full((n, n), np.nan)
    for i in range(n):
        for j in range(i + 1, n):
            values, g = _known(columns, [names[i], names[j]], clusters)
            means = _means(values, g)
            found[i, j] = _correlation(values - means[g], np.abs(values).max(0, initial=0.0))
            found[j, i] = _correlation(means, np.abs(means).max(0, initial=0.0))
    out = pd.DataFrame(found, columns=[str(k) for k in range(1, n + 1)])
    out.insert(0, "variable", [str(name) for name in names])
    return out


def _known(columns: pd.DataFrame, names: list, clusters: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Values (n, k) of the rows where all are known, and their clusters as numbers (n,)."""
    values = np.stack([columns[name].to_numpy(float) for name in names], 1)
    kept = np.isfinite(values).all(1) & clusters.notna().to_numpy()
    return values[kept], pd.factorize(clusters.to_numpy()[kept])[0]


def _means(values: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Cluster means (J, k)."""
    sizes = np.maximum(np.bincount(g), 1)
    return np.stack([np.bincount(g, column) / sizes for column in values.T], 1)


def _icc(values: np.ndarray, g: np.ndarray) -> float:
    sizes = np.bincount(g).astype(float)
    N, J = sizes.sum(), len(sizes)
    if J < 2 or N <= J:
        return np.nan
    means = _means(values[:, None], g)[g, 0]
    between, within = ((means - values.mean()) ** 2).sum() / (J - 1), ((values - means) ** 2).sum() / (N - J)
    n0 = (N - (sizes**2).sum() / N) / (J - 1)
    total = between + (n0 - 1) * within
    return float((between - within) / total) if total > 0 else np.nan


def _correlation(pair: np.ndarray, sizes: np.ndarray) -> float:
    """Of two columns (n, 2); NaN where one varies by no more than rounding of values of these sizes."""
    left = pair - pair.mean(0) if len(pair) else pair
    spread = np.sqrt((left**2).mean(0)) if len(pair) > 2 else np.zeros(2)
    if (spread <= 1e-12 * sizes).any():
        return np.nan
    return float((left[:, 0] * left[:, 1]).mean() / spread.prod())

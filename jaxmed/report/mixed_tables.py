"""The summary of a plain mixed model, laid out as lme4's ``print(summary(.))``: text for terminals, HTML for notebooks."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from jaxmed.report import names, pages
from jaxmed.report.tables import Block

DIGITS = 5  # significant digits of the largest number of a column, about what lme4 prints
FIXED = "Fixed effects"
DF = Literal["satterthwaite", "kenward-roger"]
DEGREES: dict[DF, str] = {
    "satterthwaite": "Satterthwaite's degrees of freedom",
    "kenward-roger": "Kenward and Roger's degrees of freedom and adjusted standard errors",
}
QUANTILES = ("Min", "1Q", "Median", "3Q", "Max")
HEADERS = {
    "group": "Groups",
    "name": "Name",
    "variance": "Variance",
    "std_dev": "Std.Dev.",
    "term": "",
    "std_error": "Std. Error",
    "df": "df",
    "statistic": "t value",
    "p_value": "Pr(>|t|)",
}


def random_frame(varcorr: pd.DataFrame) -> pd.DataFrame:
    """Variances, standard deviations, and the correlations below them, a row per random effect."""
    variances = varcorr[varcorr["term2"].isna()]
    width = 0
    rows = []
    for group, own in variances.groupby("group", sort=False):
        effects = list(own["term1"])
        pairs = varcorr[(varcorr["group"] == group) & varcorr["term2"].notna()]
        known = {(a, b): r for a, b, r in zip(pairs["term1"], pairs["term2"], pairs["sdcor"], strict=True)}
        width = max(width, len(effects) - 1 if known else 0)
        for a, (name, variance, sd) in enumerate(zip(effects, own["vcov"], own["sdcor"], strict=True)):
            correlations = [_two_decimals(known.get((other, name), np.nan)) for other in effects[:a]] if known else []
            shown = "" if a else str(group)
            rows.append([shown, "" if pd.isna(name) else name, variance, sd, *correlations])
    columns = ["group", "name", "variance", "std_dev", *(f"corr_{k + 1}" for k in range(width))]
    return pd.DataFrame([row + [""] * (len(columns) - len(row)) for row in rows], columns=columns)


def correlation_frame(correlation: pd.DataFrame) -> pd.DataFrame:
    """The lower triangle of the correlations of the fixed effects; column "fixed_0" is the first of them, and so on."""
    terms = [str(name) for name in correlation.index]
    values = correlation.to_numpy()
    frame = pd.DataFrame({"term": terms[1:]})
    for b in range(len(terms) - 1):
        frame[f"fixed_{b}"] = [_three_decimals(values[a, b]) if a > b else "" for a in range(1, len(terms))]
    return frame


def quantile_frame(residuals: np.ndarray) -> pd.DataFrame:
    """Minimum, quartiles and maximum."""
    found = np.quantile(residuals, [0, 0.25, 0.5, 0.75, 1]) if np.all(np.isfinite(residuals)) else [np.nan] * 5
    return pd.DataFrame([found], columns=list(QUANTILES))


def blocks(
    *,
    formula: str,
    reml: bool,
    criterion: float,
    information: dict[str, float],
    scaled: np.ndarray,
    varcorr: pd.DataFrame,
    n_obs: int,
    n_groups: pd.Series,
    fixed: pd.DataFrame,
    correlation: pd.DataFrame,
    df: DF,
    sentences: Sequence[str],
) -> list[Block]:
    """The parts of the page."""
    figures = f"REML criterion at convergence: {criterion:.1f}"
    if not reml:
        figures = "  ".join(f"{name} {value:.1f}" for name, value in information.items())
    groups = "; ".join(f"{names.term(name)}, {count}" for name, count in n_groups.items())
    shown = fixed.loc[:, ["term", "estimate", "std_error", "df", "statistic", "p_value"]]
    out: list[Block] = [
        (None, f"Formula: {names.term(formula)}\nt tests use {DEGREES[df]}\n\n{figures}"),
        ("Scaled residuals", quantile_frame(scaled)),
        ("Random effects", random_frame(varcorr)),
        (None, f"Number of obs: {n_obs}, groups: {groups}"),
        (FIXED, shown if len(shown) else "The model has none."),
    ]
    if len(fixed) > 1:
        out.append(("Correlation of fixed effects", correlation_frame(correlation)))
    out.append(("Notes", "\n".join(map(_wrapped, sentences))))
    return out


def words(converged: bool, singular: bool, varcorr: pd.DataFrame) -> list[str]:
    """Convergence and singularity in sentences a user can act on."""
    if not converged:
        return [
            "The fit did NOT converge: do not use these numbers. Leave out random slopes, write || for uncorrelated ones, or "
            "rescale predictors whose sizes differ by many powers of ten."
        ]
    if not singular:
        return ["Converged; the fit is not singular."]
    variances = varcorr[varcorr["term2"].isna() & varcorr["term1"].notna()]
    zero = variances[variances["sdcor"] <= 1e-4 * varcorr["sdcor"].iloc[-1]]
    said = "Converged, at the boundary (singular fit): "
    if len(zero):
        named = " and ".join(f"of {term} by {group}" for group, term in zip(zero["group"], zero["term1"], strict=True))
        said += f"the variance {named} is estimated as 0. "
    else:
        said += "a combination of the random effects has variance 0, or two of them are perfectly correlated. "
    return [
        said + "This is a valid optimum. The data do not support all random effects of the model: leaving out those terms gives "
        "the same fit or nearly so; if the design calls for them, keep them and say so."
    ]


def not_identified(varcorr: pd.DataFrame, lost: Sequence[str]) -> str:
    """Which variance parameters the criterion does not depend on, and what of the fixed effects hangs on them."""
    named = []
    unknown = varcorr[~varcorr["identified"]]
    for group, first, second in zip(unknown["group"], unknown["term1"], unknown["term2"], strict=True):
        if pd.isna(first):
            named.append("the residual variance")
        else:
            named.append(f"the variance of {first} by {group}" if pd.isna(second) else f"cov({first}, {second}) by {group}")
    shown = listed_words(named)
    said = f"Not identified: the criterion does not depend on {shown} (or on a combination of these), whatever the responses. "
    if lost:
        said += f"The standard errors of {listed_words(lost)} depend on it. "
    return said + (
        "These figures, and what depends on them, are NaN; the others stand. Leave out the random effect, or the fixed effects "
        "that say the same."
    )


def listed_words(items: Sequence[str], limit: int = 8) -> str:
    """Items with "and" before the last; beyond the limit their number."""
    shown = list(items[:limit]) + ([f"{len(items) - limit} more"] if len(items) > limit else [])
    return shown[0] if len(shown) == 1 else ", ".join(shown[:-1]) + " and " + shown[-1]


def summary(reml: bool, parts: Sequence[Block]) -> pages.Summary:
    return pages.summary(_title(reml), parts, **_options(parts))


def _title(reml: bool) -> str:
    return f"Linear mixed model fit by {'REML' if reml else 'maximum likelihood'}"


def _options(parts: Sequence[Block]) -> dict[str, Any]:
    """How the tables are printed."""
    fixed = next(pd.DataFrame() if isinstance(body, str) else body for heading, body in parts if heading == FIXED)
    if fixed.empty:
        return {"headers": HEADERS, "formats": dict.fromkeys(QUANTILES, ".4f"), "digits": DIGITS}
    numbers = like_r(fixed["estimate"].to_numpy(), fixed["std_error"].to_numpy())
    formats = {"estimate": numbers, "std_error": numbers, "df": ".1f", "statistic": ".3f", "p_value": r_p_value}
    return {
        "headers": {**HEADERS, **{f"fixed_{k}": names.term(name) for k, name in enumerate(fixed["term"])}},
        "formats": {**formats, **dict.fromkeys(QUANTILES, ".4f"), **{f"fixed_{k}": str for k in range(len(fixed))}},
        "digits": DIGITS,
    }


def like_r(estimate: np.ndarray, std_error: np.ndarray) -> str:
    """A format with as many decimals as give the smallest standard error four significant digits, as R prints them."""
    sizes = std_error[np.isfinite(std_error) & (std_error > 0)]
    decimals = 3 - int(np.floor(np.log10(sizes.min()))) if len(sizes) else 3
    too_long = decimals > 8 or np.abs(estimate[np.isfinite(estimate)]).max(initial=0.0) >= 1e9
    return ".4e" if too_long else f".{max(decimals, 0)}f"


def r_p_value(p: float) -> str:
    """A p value with three significant digits, as R's summaries; missing as ""."""
    if np.isnan(p):
        return ""
    return "< 2e-16" if p < 2e-16 else f"{p:.3g}" if p < 1e-3 else f"{p:.3f}"


def _wrapped(sentence: str) -> str:
    return textwrap.fill(sentence, 100, initial_indent="- ", subsequent_indent="  ", break_long_words=False)


def _two_decimals(r: float) -> str:
    return "" if np.isnan(r) else f"{r:.2f}"


def _three_decimals(r: float) -> str:
    return "" if np.isnan(r) else f"{round(r, 3) + 0.0:.3f}"  # + 0.0: no "-0.000"

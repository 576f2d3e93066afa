"""Data of clusters whose x has several categories, at either level."""

import numpy as np
import pandas as pd

ON_M, ON_Y = np.array([0.0, 0.6, -0.3, 0.2]), np.array([0.0, 0.1, 0.4, 0.3])


def arms(J=60, n=6, seed=0, level=1, k=3, slopes=0.0):
    """id, arm ("A", "B", ...; of rows, or of clusters with ``level=2``), m, y, covariates z of rows and w of clusters."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), n)
    group = rng.integers(k, size=J * n) if level == 1 else rng.permutation(np.arange(J) % k)[codes]
    u = slopes * rng.normal(size=(J, 2))[codes]
    w = rng.normal(size=J)[codes]
    m = (1 + u[:, 0]) * ON_M[group] + 0.3 * w + 0.5 * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    y = (0.5 + u[:, 1]) * m + ON_Y[group] + 0.5 * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    table = {"id": codes, "arm": np.array(list("ABCD"))[group], "m": m, "y": y, "z": rng.normal(size=J * n), "w": w}
    return pd.DataFrame(table)

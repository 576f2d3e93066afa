"""Data of two levels in which every mediator acts on those after it."""

import numpy as np
import pandas as pd


def chain(J=60, n=6, seed=0, levels=(1, 1, 1, 1), slopes=0.3):
    """x, m1, m2, m3, y in a chain, slopes of every cluster correlated; a variable of level 2 is its own cluster level."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), n)
    w = rng.normal(size=J)
    u = slopes * rng.multivariate_normal(np.zeros(4), 0.4 * np.eye(4) + 0.6, size=J)
    x = 0.6 * rng.normal(size=J)[codes] + rng.normal(size=len(codes)) * (levels[0] == 1)

    def own(sd, level):
        return sd * rng.normal(size=J)[codes] + rng.normal(size=len(codes)) * (level == 1)

    m1 = (0.5 + u[codes, 0]) * x + own(0.5, levels[1])
    m2 = (0.4 + u[codes, 1]) * m1 + 0.2 * x + own(0.5, levels[2])
    m3 = 0.3 * m2 + 0.2 * m1 + 0.1 * x + own(0.5, 1)
    y = (0.3 + u[codes, 2]) * m2 + 0.2 * m1 + 0.3 * m3 + 0.1 * x + own(0.5, levels[3])
    table = pd.DataFrame({"id": codes, "x": x, "m1": m1, "m2": m2, "m3": m3, "y": y, "w": w[codes]})
    for name, level in zip(("x", "m1", "m2", "y"), levels, strict=True):
        if level == 2:
            table[name] = table.groupby("id")[name].transform("mean")
    return table

"""Data in which x and m act on y by their product too, with the effects that follow from simulated counterfactuals."""

import numpy as np
import pandas as pd

TRUE = {"a": 0.5, "b": 0.4, "c": 0.2, "h": 0.3, "ab": 0.06}  # ab: covariance of the random slopes of a and b


def interacting(J=80, n=8, seed=0, level=1, slopes=True, binary=False, part="within"):
    """id, x, m, y, w (of clusters), z (of rows). ``part``: "within", the product of deviations; "whole", of the values."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), n)
    G = slopes * np.array([[0.15, TRUE["ab"]], [TRUE["ab"], 0.1]])
    a, b = (np.array([TRUE["a"], TRUE["b"]]) + rng.multivariate_normal([0, 0], G, size=J))[codes].T
    own = rng.normal(size=(2, J))[:, codes]
    x = (0.8 * own[0] if level == 2 else 0.4 * own[0] + rng.normal(size=J * n)) + 1.0
    if binary:
        x = (x > 1.2) * 1.0
    table = pd.DataFrame({"id": codes, "x": x, "w": rng.normal(size=J)[codes], "z": rng.normal(size=J * n)})
    table["m"] = 2.0 + a * x + 0.5 * own[1] + rng.normal(size=J * n)

    def deviation(name):
        return table[name] - table.groupby("id")[name].transform("mean")

    product = deviation("x") * deviation("m") if part == "within" else table["x"] * table["m"]
    table["y"] = b * table["m"] + TRUE["c"] * x + TRUE["h"] * product + 0.5 * rng.normal(size=J)[codes] + rng.normal(size=J * n)
    return table

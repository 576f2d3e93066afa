"""Data of two levels whose cluster means are unreliable, and the arguments that fit them."""

import numpy as np
import pandas as pd

A_W, B_W, C_W, A_B, B_B, C_B = 0.5, 0.3, 0.2, 0.8, 0.6, -0.3


def two_level(J, n, seed=0, levels=(1, 1, 1), rho=0.0, sizes=None, confounded=0.0):
    """x, m, y of the given levels with the coefficients above; ``m2``, parallel to m, whose residuals within correlate by rho.

    The residuals of the levels of m and y correlate by ``confounded``.
    """
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(J), n if sizes is None else sizes)
    N = len(codes)
    eta_x = rng.normal(size=J)
    zeta, zeta_m2 = rng.normal(size=J), rng.normal(size=J)
    eta_m, eta_m2 = A_B * eta_x + 0.6 * zeta, 0.4 * eta_x + 0.5 * zeta_m2
    zeta_y = confounded * zeta + np.sqrt(1 - confounded**2) * rng.normal(size=J)
    eta_y = B_B * eta_m + C_B * eta_x + 0.5 * zeta_y
    e = rng.normal(size=(N, 4))
    w_x = e[:, 0] * (levels[0] == 1)
    w_m = (A_W * w_x + e[:, 1]) * (levels[1] == 1)
    w_m2 = 0.3 * w_x + rho * e[:, 1] + np.sqrt(1 - rho**2) * e[:, 3]
    w_y = (B_W * w_m + C_W * w_x + e[:, 2]) * (levels[2] == 1)
    values = {"x": eta_x[codes] + w_x, "m": 2 + eta_m[codes] + w_m, "m2": eta_m2[codes] + w_m2, "y": eta_y[codes] + w_y}
    return pd.DataFrame({"id": codes} | values)


ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id", "center": "latent"}

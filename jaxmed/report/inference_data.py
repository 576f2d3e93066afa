"""Draws as arviz knows them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np

from jaxmed.errors import InputError
from jaxmed.report import names
from jaxmed.report.result import Drawn
from jaxmed.version import __version__


def inference_data(boot: Drawn) -> Any:
    """The replicates that did not fail as one chain: variables "effects" and "parameters", each with its names as coordinates."""
    arviz: Any
    try:
        import arviz  # type: ignore[import-not-found]
    except ImportError:
        raise InputError("to_arviz() needs arviz, which is not installed; get it with: pip install arviz") from None
    kept = (boot.status != "failed").to_numpy()
    draws, parameters = boot.draws.loc[kept], boot.parameters.loc[kept]
    variables = {"effects": draws.to_numpy(float)[None], "parameters": parameters.to_numpy(float)[None]}
    about = {"replicate": draws.index.to_numpy()[None], "singular": (boot.status[kept] == "singular").to_numpy()[None]}
    coords = {"effect": [names.effect(c) for c in draws.columns], "parameter": [names.parameter(c) for c in parameters.columns]}
    dims = {"effects": ["effect"], "parameters": ["parameter"]}
    said = {
        "inference_library": "jaxmed",
        "inference_library_version": __version__,
        "sampling": f"bootstrap, kind {boot.kind}, seed {boot.seed}: draws of a sampling distribution, no posterior",
        "n_failed": int(np.sum(~kept)),
    }
    groups = {"posterior": variables, "sample_stats": about}
    if "posterior" in inspect.signature(arviz.from_dict).parameters:  # before arviz 1.0: an InferenceData
        return arviz.from_dict(**groups, coords=coords, dims=dims, posterior_attrs=said)
    return arviz.from_dict(groups, coords=coords, dims=dims, attrs={"posterior": said})

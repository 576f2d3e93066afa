"""What every page begins with, out of sight: where the repository is, three decimals, figures as SVG."""

import json
import logging
from pathlib import Path

import pandas as pd
from IPython import get_ipython

logging.getLogger("jax").setLevel(logging.ERROR)
pd.set_option("display.precision", 3, "display.max_rows", 120, "display.max_colwidth", 100)
get_ipython().run_line_magic("config", "InlineBackend.figure_formats = ['svg']")

ROOT = next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "tests" / "reference").is_dir())
SHOWN = ["label", "estimate", "std_error", "conf_low", "conf_high"]


def reference(name: str) -> dict:
    """Committed numbers of other programs: ``reference("bpg06_twin_seed7")["models"]["full_reml"]``."""
    return json.loads((ROOT / "tests" / "reference" / f"{name}.json").read_text())

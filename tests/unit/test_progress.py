"""Progress bars: rate and time left on stderr, nothing on stdout, nothing at all when off."""

import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest

import jaxmed as jm
from jaxmed.progress import progress_bar
from jaxmed.reml import compilation

# few draws are enough here, and few draws are warned of
pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")


def test_a_bar_shows_the_rate_and_the_time_left(capsys):
    with progress_bar(30, True) as update:
        for _ in range(3):
            time.sleep(0.15)
            update(10)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "20/30" in seen.err
    assert "replicates/s" in seen.err
    assert "<00:0" in seen.err  # time left


@pytest.mark.usefixtures("x64")
def test_who_waits_for_a_compilation_is_told(capsys, monkeypatch):
    monkeypatch.setattr(compilation, "PATIENCE", 0.1)
    slow = partial(time.sleep, 0.4)

    def traced(x):  # run while the program is made
        slow()
        return x

    with progress_bar(10, True) as update:
        compilation.run(traced, np.ones(3))
        compilation.run(traced, np.ones(3))  # there already: nothing to say
        update(10)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.count("compiling the refits of this model, once per structure") == 1
    assert seen.err.rstrip("\r ").rsplit("\r", 1)[-1].startswith("100%")  # said no longer when it is over
    with progress_bar(10, False):
        compilation.run(traced, np.ones(4))
    compilation.run(traced, np.ones(5))  # nobody waits
    assert capsys.readouterr() == ("", "")


def test_off_means_silent(capsys):
    data = jm.datasets.split_model(n_clusters=20).data
    fit = jm.mediate(data, x="x", m="m", y="y", cluster="id", covariance="diagonal")
    boot = fit.bootstrap(60, seed=1, progress=False)
    boot.tidy(method="bca")
    fit.influence(progress=False)
    assert capsys.readouterr() == ("", "")
    fit.bootstrap(60, seed=1).tidy(method="bca")
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "0/60" in seen.err  # the draws
    assert "0/20" in seen.err  # the jackknife behind bca


def test_power_counts_data_sets_and_short_profiles_show_nothing(capsys):
    arguments = {"planning": {"a_within": 0.3, "b_within": 0.3}, "n_clusters": [20], "cluster_size": [4], "interval": "delta"}
    jm.power(**arguments, n_simulations=20, progress=False)
    fit = jm.lmm("m ~ x + (1 | id)", jm.datasets.split_model(n_clusters=20).data)
    fit.conf_int("profile")
    assert capsys.readouterr() == ("", "")
    jm.power(**arguments, n_simulations=20)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "0/20" in seen.err
    assert "data sets/s" in seen.err


def test_importing_jaxmed_imports_neither_jax_nor_matplotlib():
    code = "import sys, jaxmed; print([name for name in ('jax', 'matplotlib', 'tqdm') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_mediation_is_fitted_without_jax():
    code = """
import sys, tempfile, jaxmed
data = jaxmed.datasets.split_model(n_clusters=20).data
fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id")
fit.summary(), fit.effects(method="monte_carlo"), fit.ranef(), fit.cluster_effects(), fit.influence(progress=False)
fit.predict(), fit.simulate(seed=1), fit.conf_int(), fit.describe(), fit.report(tempfile.mkdtemp() + "/report.html")
print([name for name in sys.modules if name in ("jax", "jaxlib")])
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr

"""Calls that take long say so where somebody looks and nowhere else; what is not for the screen is logged; no warnings."""

import functools
import io
import logging
import subprocess
import sys
import threading
import time
from collections import OrderedDict

import numpy as np
import pytest

import jaxmed as jm
from jaxmed import progress
from jaxmed.calls import verb
from jaxmed.progress import Call, progress_bar
from jaxmed.reml import compilation

# few draws are enough here, and few draws are warned of
pytestmark = pytest.mark.filterwarnings("ignore::jaxmed.errors.JaxmedWarning")


@verb
def slow(seconds=0.6, progress=True):
    """A public function that takes a while."""
    time.sleep(seconds)
    return slower(seconds) if seconds > 1 else "done"


@verb
def slower(seconds):
    time.sleep(seconds)


@pytest.fixture
def terminal(monkeypatch):
    """Somebody looks, and has little patience."""
    monkeypatch.setattr(progress, "watched", lambda: True)
    monkeypatch.setattr(progress, "PATIENCE", 0.2)
    monkeypatch.setattr(progress, "TICK", 0.1)


@pytest.fixture(scope="module")
def fit():
    data = jm.datasets.split_model(n_clusters=20).data
    return jm.mediate(data, x="x", m="m", y="y", cluster="id", covariance="diagonal")


# --- The screen -----------------------------------------------------------------------------------------------------


def test_bars_that_tqdm_is_told_not_to_show_are_told_nothing(capsys, monkeypatch):
    disabled = functools.partial(progress.tqdm_here(), disable=True)  # as TQDM_DISABLE does
    monkeypatch.setattr(progress, "tqdm_here", lambda: disabled)
    with progress_bar(3, True) as count:
        progress.tell_compiling(True)
        count(1)
        progress.tell_compiling(False)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("terminal")
def test_a_call_that_takes_long_is_named_with_its_seconds(capsys):
    assert slow(1.3) == slower(0)
    seen = capsys.readouterr()
    assert seen.out == ""
    assert "slow() 00:01" in seen.err
    assert "slower()" not in seen.err  # a part of the other
    assert seen.err.endswith("\r")  # and it is taken away again
    assert not seen.err.rpartition("\r")[0].rpartition("\r")[2].strip()
    assert Call.outermost is None


@pytest.mark.usefixtures("terminal")
def test_progress_false_and_short_calls_are_silent(capsys):
    slow(progress=False)
    slow(0.6, False)
    slow(0.0)
    thread = threading.Thread(target=slow)  # nobody waits for it
    thread.start()
    thread.join()
    assert capsys.readouterr() == ("", "")


def test_files_and_pipes_see_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.1)
    slow()
    with progress_bar(10, None, "effects") as update:
        time.sleep(0.3)
        update(5)
    assert capsys.readouterr() == ("", "")


def test_who_looks(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.watched()
    monkeypatch.setattr(sys, "stderr", None)
    assert not progress.watched()
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    assert progress.watched()
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert not progress.watched()
    monkeypatch.delenv("TQDM_DISABLE")
    shell = type("Shell", (), {"config": {"IPKernelApp": {}}})
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {"get_ipython": staticmethod(lambda: shell)}))
    assert progress.watched()
    shell.config = {}  # a terminal's, whose output goes to a file
    assert not progress.watched()


@pytest.mark.usefixtures("terminal")
def test_an_error_takes_the_sign_away(capsys):
    @verb
    def fails():
        time.sleep(0.5)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        fails()
    assert "fails() 00:00" in capsys.readouterr().err
    assert Call.outermost is None
    assert not [t for t in threading.enumerate() if "watch" in t.name]


@pytest.mark.usefixtures("terminal")
def test_a_bar_stands_in_place_of_the_sign(capsys):
    @verb
    def counts():
        with progress_bar(10, None, "clusters") as update:
            time.sleep(0.5)
            update(5)
            time.sleep(0.3)
        time.sleep(0.5)

    counts()
    seen = [piece.strip() for piece in capsys.readouterr().err.split("\r")]
    bars, signs = [[k for k, piece in enumerate(seen) if what in piece] for what in ("/10 [", "counts()")]
    assert any("0/10" in seen[k] for k in bars)  # before anything was counted
    assert any("5/10" in seen[k] for k in bars)
    assert signs
    assert max(bars) < min(signs)  # after it the sign again


@pytest.mark.usefixtures("terminal")
def test_profiles_and_influence_are_counted_where_somebody_looks(fit, capsys, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    fit.effects(method="profile")
    assert f"/{len(fit.effects())} [" in capsys.readouterr().err
    fit.conf_int("profile")
    assert "parameters/s" in capsys.readouterr().err
    fit.plot("influence")
    assert "/20 [" in capsys.readouterr().err
    fit.test_indirect(progress=False)
    fit.influence(progress=False)
    assert capsys.readouterr() == ("", "")


def test_without_a_terminal_figures_and_profiles_are_silent(fit, capsys):
    fit.plot("influence")
    fit.intervals()
    assert capsys.readouterr() == ("", "")


# --- The log --------------------------------------------------------------------------------------------------------


def test_the_log_says_what_was_compiled_and_refitted_and_what_was_there(fit, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(compilation.compiled, "programs", OrderedDict())  # other tests may have compiled this one
    with caplog.at_level(logging.DEBUG, logger="jaxmed"):
        fit.bootstrap(40, seed=1, progress=False, save_to=tmp_path)
        fit.bootstrap(60, seed=1, progress=False, save_to=tmp_path)
        jm.load_bootstrap(tmp_path)
    assert all(record.name.startswith("jaxmed.") for record in caplog.records if "jax" in record.name)
    ours = [record for record in caplog.records if record.name.startswith("jaxmed.")]
    assert all(record.levelno < logging.WARNING for record in ours)
    said = [record.getMessage() for record in ours]
    assert any(one.startswith("compiled ") and one.endswith(" s") for one in said)
    assert any(one.endswith("was compiled before") for one in said)
    assert any(one.startswith("60 replicates: 40 there already, 20 to be refitted in") for one in said)
    assert any("took the safe route, " in one for one in said)
    assert any(one.startswith("draws are kept in") and one.endswith("which has 40 replicates") for one in said)
    assert any(one.startswith("opened 60 replicates in") for one in said)
    assert any(one.startswith("mediate: 20 clusters, ") for one in said)


def test_the_log_counts_the_passes_of_an_engine_and_the_models_of_many(caplog):
    polars = pytest.importorskip("polars")
    data = jm.datasets.split_model(n_clusters=20).data
    with caplog.at_level(logging.INFO, logger="jaxmed"):
        jm.gram_data(polars.from_pandas(data).lazy(), x="x", m="m", y="y", cluster="id")
        jm.lmm("y ~ x + (1 | id)", data)
    said = [record.getMessage() for record in caplog.records]
    assert any(one.startswith("sums of products per cluster came back in ") for one in said)
    assert any(one.startswith(f"lmm: {len(data)} rows; design ") for one in said)


class Dies:
    """A pool whose first worker is lost."""

    def __init__(self):
        self.lost = False

    def submit(self, work, task):
        from concurrent.futures import Future

        future = Future()
        if self.lost:
            future.set_result(work(task))
        else:
            self.lost = True
            future.set_exception(ConnectionError("gone"))
        return future


def test_the_log_names_chunks_whose_worker_is_lost(fit, caplog):
    with caplog.at_level(logging.INFO, logger="jaxmed"):
        fit.bootstrap(40, seed=1, progress=False, executor=Dies())
    said = [record.getMessage() for record in caplog.records]
    assert any("were lost with their worker, try 1 of 3: ConnectionError: gone" in one for one in said)


def test_nothing_is_logged_unless_asked_for():
    code = "import jaxmed, logging; logging.getLogger('jaxmed.x').warning('seen'); print(logging.getLogger('jaxmed').handlers)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "NullHandler" in done.stdout
    assert done.stderr == ""


# --- Warnings -------------------------------------------------------------------------------------------------------

MAIN_JOB = """
import sys, tempfile
import numpy as np
import jaxmed as jm
folder = tempfile.mkdtemp()
data = jm.datasets.split_model(n_clusters=40).data
fit = jm.mediate(data, x="x", m="m", y="y", cluster="id", covariance="diagonal")
str(fit.summary()), fit.effects(), fit.intervals(), fit.describe(), fit.check()
boot = fit.bootstrap(2_000, seed=1, progress=False, save_to=folder)
str(boot.summary()), boot.tidy(), boot.describe()
for result, kinds in ((fit, ("path", "forest", "influence")), (boot, ("density", "health"))):
    for kind in kinds:
        result.plot(kind).figure.savefig(folder + f"/{kind}.png")
boot.report(folder + "/report.html", sensitivity=True)
fit.to_latex(), fit.to_markdown(), fit.to_html(), jm.compare_table({"fit": fit})
jm.load_bootstrap(folder).tidy()
mixed = jm.lmm("y ~ x + (1 | id)", data)
str(mixed.summary()), mixed.anova(), mixed.conf_int("profile", progress=False), mixed.predict(data.head())
mixed.report(folder + "/mixed.html")
print("done")
"""


def test_the_main_job_warns_of_nothing():
    """In a fresh process in which every warning is an error, matplotlib's, pandas' and JAX's too, and files left open as well."""
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", MAIN_JOB]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=580)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == ["done"]
    assert done.stderr == ""


def test_scalars_in_progress_are_still_checked(fit):
    with pytest.raises(jm.InputError, match="progress"):
        fit.bootstrap(40, seed=1, progress=None)
    with pytest.raises(jm.InputError, match="progress"):
        fit.influence(progress=np.array([True, False]))

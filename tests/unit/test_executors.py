"""Replicates done by other people's pools: the same draws, whatever is lost on the way."""

import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import jaxmed
from jaxmed.inference import executors

CHUNK = {"progress": False, "chunk_size": 32}  # one size: each compiles a program
N = 256


@pytest.fixture(scope="module")
def data():
    data = jaxmed.datasets.split_model(n_clusters=40).data
    return data.assign(batch=np.arange(len(data)) % 6)


@pytest.fixture(scope="module")
def fit(data):
    """A model whose program compiles in a moment: workers do it too."""
    return jaxmed.lmm("m ~ x + (1 | id)", data)


@pytest.fixture(scope="module")
def here(fit):
    return fit.bootstrap(N, seed=3, kind="cluster", **CHUNK)


@pytest.fixture(autouse=True)
def _no_fit_is_kept():
    executors._kept.clear()


def same(found, expected):
    """Bit by bit, with status, evaluations and reasons."""
    for name, values in expected.raw.arrays().items():
        np.testing.assert_array_equal(found.raw.arrays()[name], values, err_msg=name)


class Pool(Executor):
    """One worker in a thread, that ``troubles`` as told before a task; it notes which tasks came, and which carried the fit."""

    def __init__(self, trouble=lambda number, task: None):
        self.trouble, self.pool = trouble, ThreadPoolExecutor(1)
        self.tasks, self.done, self.num_workers = [], 0, 1

    def submit(self, fn, /, task):
        self.tasks.append(task)
        return self.pool.submit(self._one, len(self.tasks), fn, task)

    def _one(self, number, fn, task):
        self.trouble(number, task)
        answer = fn(task)
        self.done += 1
        return answer

    @property
    def carried(self):
        return sum(task.fit is not None for task in self.tasks)


# ------------------------------------------------------------------------------------------------------- the same draws


@pytest.mark.parametrize("kind", ["cluster", "bayesian", "jackknife", "two_stage", "rows", "parametric", "residual", "wild"])
def test_every_scheme_gives_the_draws_of_this_process(fit, kind):
    arguments = {"seed": 2, "kind": kind, **CHUNK}
    with ThreadPoolExecutor(2) as pool:
        same(fit.bootstrap(80, executor=pool, **arguments), fit.bootstrap(80, **arguments))


@pytest.mark.parametrize("kind", ["parametric", "residual"])
def test_crossed_factors_too(data, kind):
    crossed = jaxmed.lmm("m ~ x + (1 | id) + (1 | batch)", data)
    with ThreadPoolExecutor(2) as pool:
        there = crossed.bootstrap(40, seed=2, kind=kind, executor=pool, progress=False)
    same(there, crossed.bootstrap(40, seed=2, kind=kind, progress=False))


def test_a_mediation_with_functions_that_cannot_be_pickled(data):
    labelled = data.assign(id=[f"school {i}" for i in data["id"]])
    mediation = jaxmed.mediate(
        labelled, x="x", m="m", y="y", cluster="id", covariance="by_equation", extra={"twice": lambda p: 2 * p["m:x_within"]}
    )
    sent = executors.pickle.dumps(mediation._scheme("cluster", 1, None, "mammen").bare())
    assert b"school" not in sent
    with ThreadPoolExecutor(2) as pool:
        there = mediation.bootstrap(64, seed=2, executor=pool, strata=labelled["id"].str[-1] > "4", **CHUNK)
    same(there, mediation.bootstrap(64, seed=2, strata=labelled["id"].str[-1] > "4", **CHUNK))


def test_boot_mlmem_hands_the_pool_on(data):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(jaxmed.ProcessError, match="after shutdown"):
        jaxmed.boot_mlmem(data, "x", "m", "y", "id", n_boot=1000, progress=False, executor=pool)


def test_progress_counts_what_comes_back(fit, here, monkeypatch):
    counted = []

    class Bar:
        def __init__(self, total, shown, **_):
            assert (total, shown) == (N, True)

        def __enter__(self):
            return counted.append

        def __exit__(self, *_):
            pass

    monkeypatch.setattr("jaxmed.report.bootstrap_call.progress_bar", Bar)
    same(fit.bootstrap(N, seed=3, kind="cluster", chunk_size=32, executor=Pool()), here)
    assert counted == [0] + [32] * 8  # a call for each chunk, after none that a folder had


# ------------------------------------------------------------------------------------------------- what a worker is sent


def test_the_fit_goes_to_a_worker_once(fit, here, monkeypatch):
    monkeypatch.setattr(executors, "CARRIED", 0)
    pool = Pool()
    same(fit.bootstrap(N, seed=3, kind="cluster", executor=pool, **CHUNK), here)
    assert (len(pool.tasks), pool.carried) == (8, 1)


def test_a_worker_that_lacks_the_fit_is_sent_it(fit, here, monkeypatch):
    monkeypatch.setattr(executors, "CARRIED", 0)
    # at the fourth task another process takes over, that died and came back
    pool = Pool(lambda number, task: executors._kept.clear() if number == 4 else None)
    same(fit.bootstrap(N, seed=3, kind="cluster", executor=pool, **CHUNK), here)
    again = [task for task in pool.tasks[8:] if task.fit]
    assert len(again) == len(pool.tasks) - 8 == 5  # tasks 4 to 8 had been sent without it
    assert pool.done == 13


def test_few_bytes_travel_with_every_task(fit):
    pool = Pool()
    fit.bootstrap(N, seed=3, kind="cluster", executor=pool, **CHUNK)
    assert pool.carried == len(pool.tasks) == 8
    assert len(pool.tasks[0].fit) < 50_000


def test_a_worker_keeps_few_fits(fit):
    for seed in range(executors.KEPT + 2):
        fit.bootstrap(32, seed=seed, kind="cluster", executor=Pool(), **CHUNK)
    assert len(executors._kept) == executors.KEPT


def test_how_many_workers_a_pool_has():
    assert executors.n_workers(ThreadPoolExecutor(3)) == 3
    assert executors.n_workers(Pool()) == 1
    assert executors.n_workers(NoFutures()) == executors.UNKNOWN


# ----------------------------------------------------------------------------------------------------- what goes wrong


def lose(*numbers):
    def trouble(number, task):
        if number in numbers:
            raise ConnectionError("the worker is gone")

    return trouble


def test_a_lost_chunk_is_done_again(fit, here):
    with pytest.warns(jaxmed.JaxmedWarning, match=r"3 chunks were lost.*done again \(ConnectionError: the worker is gone\)"):
        boot = fit.bootstrap(N, seed=3, kind="cluster", executor=Pool(lose(1, 4, 9)), **CHUNK)
    same(boot, here)


@pytest.mark.parametrize("error", [MemoryError("no room"), OSError("a full disk"), BrokenExecutor("lost")])
def test_what_is_of_a_machine_is_tried_on_another(fit, here, error, monkeypatch):
    failures = [error]
    refits = type(fit._scheme("cluster", 3, None, "mammen")).refits

    def failing(*args):
        if failures and not isinstance(error, BrokenExecutor):
            raise failures.pop()
        return refits(*args)

    def trouble(number, task):
        if failures and isinstance(error, BrokenExecutor):
            raise failures.pop()

    monkeypatch.setattr("jaxmed.inference.schemes.Scheme.refits", failing)
    with pytest.warns(jaxmed.JaxmedWarning, match="1 chunks were lost"):
        same(fit.bootstrap(N, seed=3, kind="cluster", executor=Pool(trouble), **CHUNK), here)


def test_a_chunk_that_no_worker_does_is_an_error_and_the_rest_is_kept(fit, here, tmp_path):
    def trouble(number, task):
        if task.span.start == 64:
            raise ConnectionError("gone")

    pool = Pool(trouble)
    with pytest.raises(jaxmed.ProcessError, match=r"32 replicates came back from no worker \(ConnectionError: gone\).*save_to="):
        fit.bootstrap(N, seed=3, kind="cluster", save_to=tmp_path, executor=pool, **CHUNK)
    assert len(pool.tasks) == 8 + executors.TRIES - 1
    assert len(list(tmp_path.glob("draws-*"))) == 7
    mended = Pool()
    same(fit.bootstrap(N, seed=3, kind="cluster", save_to=tmp_path, executor=mended, **CHUNK), here)
    assert [task.span for task in mended.tasks] == [range(64, 96)]


def test_a_pool_that_breaks_takes_no_more_and_what_was_under_way_is_kept(fit, tmp_path):
    class Breaking(Pool):
        def submit(self, fn, /, task):
            if len(self.tasks) == 5:
                raise BrokenExecutor("a process was terminated")
            return super().submit(fn, task)

    with pytest.raises(
        jaxmed.ProcessError, match=r"96 replicates .*\(BrokenExecutor: a process was terminated\).*make a new pool"
    ):
        fit.bootstrap(N, seed=3, kind="cluster", save_to=tmp_path, executor=Breaking(), **CHUNK)
    assert len(list(tmp_path.glob("draws-*"))) == 5


def test_an_error_of_the_computation_comes_as_it_is_and_at_once(fit, monkeypatch):
    def failing(self, span, *_):
        raise jaxmed.InputError("the model's own error")

    monkeypatch.setattr("jaxmed.inference.schemes.Scheme.refits", failing)
    pool = Pool(lambda number, task: time.sleep(0.05))
    with pytest.raises(jaxmed.InputError, match="the model's own error") as caught:
        fit.bootstrap(N, seed=3, kind="cluster", executor=pool, **CHUNK)
    assert "in a worker of executor=" in caught.value.__notes__[0]
    pool.pool.shutdown()
    assert len(pool.tasks) == 8
    assert pool.done < 8


def test_an_error_that_cannot_be_pickled_comes_in_words(fit, monkeypatch):
    class Odd(Exception):
        pass

    def failing(self, span, *_):
        raise Odd("why")

    monkeypatch.setattr("jaxmed.inference.schemes.Scheme.refits", failing)
    with pytest.raises(RuntimeError, match="Odd: why"):
        fit.bootstrap(N, seed=3, kind="cluster", executor=Pool(), **CHUNK)


def test_an_interrupt_cancels_what_has_not_begun(fit, tmp_path, monkeypatch):
    class Interrupted:
        def __init__(self, *_, **__):
            self.calls = 0

        def __enter__(self):
            return self.count

        def __exit__(self, *_):
            pass

        def count(self, done):
            self.calls += 1
            if self.calls == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr("jaxmed.report.bootstrap_call.progress_bar", Interrupted)
    pool = Pool(lambda number, task: time.sleep(0.05))
    with pytest.raises(KeyboardInterrupt):
        fit.bootstrap(N, seed=3, kind="cluster", save_to=tmp_path, executor=pool, **CHUNK)
    pool.pool.shutdown()
    assert 2 <= pool.done < 8
    assert len(list(tmp_path.glob("draws-*"))) == 2


def test_another_version_of_jaxmed_is_refused(fit, monkeypatch):
    monkeypatch.setattr(executors, "__version__", "0.0")
    with pytest.raises(jaxmed.ProcessError, match=r"a worker has jaxmed 0\.0.*install the same version"):
        fit.bootstrap(N, seed=3, kind="cluster", executor=Pool(), **CHUNK)


class NoFutures:
    def submit(self, fn, /, task):
        return "ticket"


class Client:
    submit = None

    def get_executor(self):
        pass


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        (ProcessPoolExecutor, "is a class, not a pool; make one, such as"),
        (multiprocessing, r"has no submit\(\)"),
        ("dask", r"executor='dask' has no submit\(\)"),
        (4, r"executor=4 has no submit\(\)"),
        (Client(), r"give client.get_executor\(\)"),
        (NoFutures(), "returns 'ticket', no future"),
    ],
)
def test_what_is_no_pool_is_refused(fit, executor, words):
    with pytest.raises(jaxmed.InputError, match=words):
        fit.bootstrap(10, executor=executor, progress=False)


def test_a_pool_that_was_shut_down(fit):
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    with pytest.raises(jaxmed.ProcessError, match="cannot schedule new futures after shutdown"):
        fit.bootstrap(10, executor=pool, progress=False)


def test_a_word_of_others_for_the_pool(fit):
    with pytest.raises(jaxmed.ArgumentError, match="executor"):
        fit.bootstrap(10, pool=ThreadPoolExecutor(1))


def test_futures_of_another_kind_will_do(fit, here):
    class Later:
        def __init__(self, future: Future):
            self.result, self.cancel, self.future = future.result, future.cancel, future

        def add_done_callback(self, fn):
            self.future.add_done_callback(lambda _: fn(self))

    class Others:
        def __init__(self):
            self.pool = ThreadPoolExecutor(2)

        def submit(self, fn, /, task):
            return Later(self.pool.submit(fn, task))

    same(fit.bootstrap(N, seed=3, kind="cluster", executor=Others(), **CHUNK), here)


# ------------------------------------------------------------------------------------------------------ real processes


def spawned(n):
    return ProcessPoolExecutor(n, mp_context=multiprocessing.get_context("spawn"))


def kill_one(pids, written, folder):
    """Kill a process as soon as so many chunks are there."""

    def wait():
        while len(list(folder.glob("draws-*"))) < written:
            time.sleep(0.01)
        os.kill(pids()[0], signal.SIGKILL)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_processes_give_the_same_draws_and_a_dead_one_loses_nothing(fit, here, tmp_path):
    with spawned(2) as pool:
        same(fit.bootstrap(N, seed=3, kind="cluster", executor=pool, **CHUNK), here)
        fit.bootstrap(64, seed=4, kind="cluster", save_to=tmp_path, executor=pool, **CHUNK)
        os.kill(next(iter(pool._processes)), signal.SIGKILL)
        with pytest.raises(jaxmed.ProcessError, match=r"came back from no worker \(BrokenProcessPool.*make a new pool"):
            fit.bootstrap(20_000, seed=4, kind="cluster", save_to=tmp_path, executor=pool, **CHUNK)
    with spawned(1) as pool:
        boot = fit.bootstrap(N, seed=4, kind="cluster", save_to=tmp_path, executor=pool, **CHUNK)
    same(boot, fit.bootstrap(N, seed=4, kind="cluster", **CHUNK))


def test_a_dask_worker_killed_in_the_middle_loses_nothing(fit, tmp_path):
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    dask, n = pytest.importorskip("dask"), 1_600
    expected = fit.bootstrap(n, seed=5, kind="cluster", **CHUNK)
    ours = dask.config.set({"distributed.scheduler.allowed-failures": 0})  # Dask itself tries nothing again
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    with ours, cluster, distributed.Client(cluster) as client:
        before = client.run(os.getpid)
        assert os.getpid() not in before.values()
        killing = kill_one(lambda: list(before.values()), 3, tmp_path)
        with pytest.warns(jaxmed.JaxmedWarning, match="chunks were lost with their workers and done again"):
            boot = fit.bootstrap(n, seed=5, kind="cluster", save_to=tmp_path, executor=client.get_executor(), **CHUNK)
        killing.join(10)
    same(boot, expected)
    same(jaxmed.load_bootstrap(tmp_path, fit), expected)


FORKED = """
import multiprocessing, warnings
from concurrent.futures import ProcessPoolExecutor
import jaxmed
warnings.simplefilter("ignore")
fit = jaxmed.lmm("m ~ x + (1 | id)", jaxmed.datasets.split_model(n_clusters=40).data)
with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
    try:
        fit.bootstrap(10, executor=pool, progress=False)
    except jaxmed.ProcessError as error:
        assert "get_context('spawn')" in str(error)
        print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_workers_say_why_not():
    environment = os.environ | {"PYTHONPATH": str(Path(jaxmed.__file__).parent.parent)}
    run = functools.partial(subprocess.run, capture_output=True, text=True, env=environment, timeout=100, check=False)
    done = run([sys.executable, "-c", FORKED])
    assert done.stdout.strip() == "fine", done.stderr

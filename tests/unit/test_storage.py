"""Draws on disk: whole or not at all, resumed after kill -9, refused where they are not ours."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import jaxmed
from jaxmed.inference import storage

COMMON = {"x": "x", "m": "m", "y": "y", "cluster": "id", "center": "none"}
CHUNK = {"progress": False, "chunk_size": 32}  # one size: each compiles a program


@pytest.fixture(scope="module")
def data():
    data = jaxmed.datasets.bpg06_twin(seed=7, n_clusters=30, cluster_size=5).data
    return data.assign(g=np.where(data["id"] % 2, "odd", "even"))


@pytest.fixture(scope="module")
def fit(data):
    return jaxmed.mediate(data, **COMMON, covariance="by_equation", covariates={"y": ["g"]})


@pytest.fixture(scope="module")
def plain(fit):
    return fit.bootstrap(300, seed=3, progress=False)  # in one chunk


def same(a, b):
    pd.testing.assert_index_equal(a.draws.index, b.draws.index)
    assert ((a.draws - b.draws).abs() / a.draws.std()).max().max() < 1e-8
    for i in a.draws.index[[0, -1]]:
        np.testing.assert_array_equal(a.weights(i), b.weights(i))


def test_saved_draws_are_the_draws(fit, plain, tmp_path):
    boot = fit.bootstrap(300, seed=3, save_to=tmp_path / "new" / "folder", **CHUNK)
    same(plain, boot)
    same(plain, jaxmed.load_bootstrap(tmp_path / "new" / "folder"))
    same(plain, jaxmed.load_bootstrap(tmp_path / "new" / "folder", fit))
    assert not [name for name in os.listdir(tmp_path / "new" / "folder") if name.startswith(".")]


def test_a_folder_grows_and_does_no_work_twice(fit, plain, tmp_path, monkeypatch):
    fit.bootstrap(100, seed=3, save_to=tmp_path, **CHUNK)
    times = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("draws-*")}
    boot = fit.bootstrap(300, seed=3, save_to=tmp_path, **CHUNK)
    same(plain, boot)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in times} == times
    monkeypatch.setattr("jaxmed.reml.refit.refit", None)  # nothing is left to refit
    same(plain, fit.bootstrap(300, seed=3, save_to=tmp_path, **CHUNK))
    assert len(fit.bootstrap(50, seed=3, save_to=tmp_path, **CHUNK)) == 50


KILLED = """
import sys, time, jaxmed, numpy as np
from jaxmed.inference import storage
data = jaxmed.datasets.bpg06_twin(seed=7, n_clusters=30, cluster_size=5).data
data = data.assign(g=np.where(data["id"] % 2, "odd", "even"))
fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", center="none", covariance="by_equation", covariates={"y": ["g"]})
write = storage.write_whole
def slowly(path, content, new=False):
    write(path, content, new)
    print(path.name, flush=True)
    time.sleep(0.2)
storage.write_whole = slowly
fit.bootstrap(300, seed=3, progress=False, save_to=sys.argv[1], chunk_size=32)
"""


def test_killed_and_resumed(fit, plain, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(jaxmed.__file__).parents[1])}
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment)
    written = 0
    for line in child.stdout:
        written += line.startswith("draws-")
        if written == 3:
            break
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    there = len(list(tmp_path.glob("draws-*")))
    assert 3 <= there < 10
    (tmp_path / ".draws-000000288-000000300.npz.999-dead").write_bytes(b"half a chunk")  # what a kill may leave behind
    with pytest.warns(jaxmed.JaxmedWarning, match=r"that were asked for, .* are missing .*the run was cut off"):
        assert len(jaxmed.load_bootstrap(tmp_path)) < 300
    same(plain, fit.bootstrap(300, seed=3, save_to=tmp_path, progress=False))  # in chunks of another size


def test_parts_of_a_job_array(fit, plain, tmp_path):
    parts = [fit.bootstrap(seed=3, replicates=range(a, a + 100), progress=False) for a in (200, 0, 100)]
    assert list(parts[0].draws.index) == list(range(200, 300))
    same(plain, jaxmed.merge_bootstraps(parts))
    same(plain, jaxmed.merge_bootstraps([*parts, parts[0]]))
    pd.testing.assert_frame_equal(parts[0].resample(250), plain.resample(250))
    for a in (100, 0, 200):  # or into one folder
        fit.bootstrap(seed=3, replicates=range(a, a + 100), save_to=tmp_path, **CHUNK)
    same(plain, jaxmed.load_bootstrap(tmp_path))
    table = jaxmed.merge_bootstraps(parts).tidy(level=0.9)
    np.testing.assert_allclose(table["conf_low"], plain.tidy(level=0.9)["conf_low"])


def test_parts_that_do_not_belong_together(fit, data, plain):
    with pytest.raises(jaxmed.InputError, match=r"parts\[1\].*seed \(3 here, 4 there\)"):
        jaxmed.merge_bootstraps([plain, fit.bootstrap(10, seed=4, progress=False)])
    with pytest.raises(jaxmed.InputError, match="parts is empty"):
        jaxmed.merge_bootstraps([])


def test_folders_of_others_are_refused(fit, data, tmp_path):
    fit.bootstrap(10, seed=3, save_to=tmp_path, **CHUNK)

    def refused(words, other=fit, **options):
        with pytest.raises(jaxmed.InputError, match=words):
            other.bootstrap(**{"n_resamples": 10, "seed": 3, "save_to": tmp_path} | CHUNK | options)

    refused(r"seed \(4 here, 3 there\) differ", seed=4)
    refused("resampling scheme", kind="bayesian")
    refused("the strata differ", strata="g")
    changed = data.assign(y=data["y"] + (data.index == 3))
    refused("the data differ", jaxmed.mediate(changed, **COMMON, covariance="by_equation", covariates={"y": ["g"]}))
    refused("the model differ", jaxmed.mediate(data, **COMMON, covariance="by_equation", covariates={"y": ["g"]}, reml=False))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["identity"]["jaxmed"] = "0.0.1"
    (tmp_path / "manifest.json").write_text(json.dumps(storage.sealed(manifest)))
    refused(r"version of jaxmed \(0.2.0 here, 0.0.1 there\)")
    (tmp_path / "manifest.json").unlink()
    refused("no manifest.json")
    with pytest.raises(jaxmed.InputError, match="no folder of draws"):
        jaxmed.load_bootstrap(tmp_path)


def test_an_unwritable_folder_is_an_error_at_once(fit, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxmed.reml.refit.refit", None)  # before any work
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(jaxmed.StorageError, match="cannot be written to"):
        fit.bootstrap(10, seed=3, save_to=tmp_path / "file", **CHUNK)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(jaxmed.StorageError, match="No space left"):
        fit.bootstrap(10, seed=3, save_to=tmp_path / "folder", **CHUNK)


def test_a_disk_that_fills_up_stops_the_run_and_keeps_what_is_there(fit, plain, tmp_path, monkeypatch):
    write, count = storage.write_whole, []

    def until_full(path, content, new=False):
        count.append(path)
        if len(count) > 4:
            raise jaxmed.StorageError(f"{path}: No space left on device")
        write(path, content, new)

    original = storage.write_whole
    monkeypatch.setattr(storage, "write_whole", until_full)
    with pytest.raises(jaxmed.StorageError, match="No space left"):
        fit.bootstrap(300, seed=3, save_to=tmp_path, **CHUNK)
    monkeypatch.setattr(storage, "write_whole", original)
    with pytest.warns(jaxmed.JaxmedWarning, match="are missing"):
        assert 0 < len(jaxmed.load_bootstrap(tmp_path)) < 300
    same(plain, fit.bootstrap(300, seed=3, save_to=tmp_path, progress=False))


def test_a_damaged_chunk_is_named(fit, tmp_path):
    fit.bootstrap(10, seed=3, save_to=tmp_path, **CHUNK)
    chunk = next(tmp_path.glob("draws-*"))
    chunk.write_bytes(chunk.read_bytes()[:200])
    with pytest.raises(jaxmed.StorageError, match=f"{chunk.name} is damaged"):
        jaxmed.load_bootstrap(tmp_path)


def test_functions_have_to_be_given_again(data, tmp_path):
    extra = {"twice": lambda p: 2 * p["m:x"]}
    fit = jaxmed.mediate(data, **COMMON, covariance="by_equation", extra=extra)
    boot = fit.bootstrap(20, seed=3, save_to=tmp_path, **CHUNK)
    with pytest.raises(jaxmed.InputError, match="the functions twice"):
        jaxmed.load_bootstrap(tmp_path)
    same(boot, jaxmed.load_bootstrap(tmp_path, extra=extra))


@pytest.mark.parametrize(
    ("replicates", "words"), [(range(5, 5), "range"), ([1, 2], "range"), (range(0, 10, 2), "range"), (range(-3, 4), "range")]
)
def test_bad_replicates(fit, replicates, words):
    with pytest.raises(jaxmed.InputError, match=words):
        fit.bootstrap(replicates=replicates)


def test_missing_parts():
    from jaxmed.inference.bootstrap import missing

    assert missing(range(0, 10), []) == [range(0, 10)]
    assert missing(range(3, 8), [range(0, 4), range(6, 20)]) == [range(4, 6)]
    assert missing(range(3, 8), [range(0, 40)]) == []

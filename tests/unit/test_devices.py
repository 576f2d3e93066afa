"""Draws do not depend on how many devices or hosts made them: in processes of their own, as JAX counts devices once."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxmed

CODE = """
import sys, numpy as np, jax
if len(sys.argv) > 3:
    jax.distributed.initialize(sys.argv[3], num_processes=2, process_id=int(sys.argv[4]))
import jaxmed
data = jaxmed.datasets.bpg06_twin(seed=7, n_clusters=20, cluster_size=5).data
fit = jaxmed.mediate(data, x="x", m="m", y="y", cluster="id", center="none")
out = {"devices": jax.local_device_count()}
for kind in sys.argv[2].split(","):
    boot = fit.bootstrap(70, seed=3, kind=kind, progress=False, chunk_size=16)
    out[kind] = boot.draws.to_numpy()
    out[kind + " weights"] = np.stack([boot.weights(i) for i in range(70)])
    out[kind + " se"] = boot.std_errors.to_numpy()
np.savez(sys.argv[1], **out)
"""


def start(target, kinds, *more, devices=1):
    environment = os.environ | {
        "PYTHONPATH": str(Path(jaxmed.__file__).parents[1]),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", "") + f" --xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", CODE, str(target), kinds, *map(str, more)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(process):
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    target = tmp_path_factory.mktemp("alone") / "draws.npz"
    finished(start(target, "cluster,parametric"))
    return np.load(target)


def same(found, alone):
    for name in found.files:
        if name != "devices":
            spread = alone[name].std(0) if name in ("cluster", "parametric") else 1.0
            difference = np.abs(found[name] - alone[name]) / spread
            assert difference.max() < (1e-8 if "se" not in name else 1e-6)
    np.testing.assert_array_equal(found["cluster weights"], alone["cluster weights"])


def test_eight_devices_give_the_same_draws(alone, tmp_path):
    finished(start(tmp_path / "draws.npz", "cluster,parametric", devices=8))
    found = np.load(tmp_path / "draws.npz")
    assert found["devices"] == 8
    same(found, alone)


def test_two_hosts_give_the_same_draws(alone, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    targets = [tmp_path / f"{k}.npz" for k in (0, 1)]
    hosts = [start(target, "cluster", address, k) for k, target in enumerate(targets)]
    for host in hosts:
        finished(host)
    for target in targets:
        same(np.load(target), alone)

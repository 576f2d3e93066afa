"""What stands around a call: JAX's settings, a trace of the user's own, a fork. The model is one that other tests compile too."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmed
from jaxmed.reml import compilation
from jaxmed.reml.compilation import own_settings

ROLES = {"x": "x", "m": "m", "y": "y", "cluster": "id"}


@pytest.fixture(scope="module")
def data():
    return jaxmed.datasets.split_model(n_clusters=40).data


def numbers(data):
    """Of a fit and its bootstrap, whose replicates run in threads."""
    fit = jaxmed.mediate(data, **ROLES)
    return np.concatenate([fit.effects()["std_error"], fit.bootstrap(64, seed=1, progress=False).draws.to_numpy().ravel()])


@pytest.fixture(scope="module")
def plain(data):
    return numbers(data)


SETTINGS = {
    "disable_jit": lambda: jax.disable_jit(),
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
    "transfer_guard_explicit": lambda: jax.transfer_guard("disallow_explicit"),
    "strict promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "another threefry": lambda: jax.threefry_partitionable(False),
    "leaks": lambda: jax.checking_leaks(),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_jax_changes_no_number(name, data, plain):
    with SETTINGS[name]():
        np.testing.assert_array_equal(numbers(data), plain)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_program_compiles_under_any_setting_of_jax(name):
    def roots(a):  # a loop, 64-bit floats, and a lane that is NaN by design
        return jax.lax.while_loop(lambda s: (s[0] < 3).all(), lambda s: (s[0] + 1, jnp.sqrt(s[1]) + np.int32(0)), (a * 0, a))[1]

    with SETTINGS[name](), own_settings():
        out = np.asarray(compilation.once(roots, np.array([16.0, -1.0])))
    np.testing.assert_allclose(out, [2**0.5, np.nan])
    assert out.dtype == np.float64


def test_a_setting_for_the_whole_process_reaches_no_thread(data, plain):
    before = jax.config.jax_disable_jit, jax.config.jax_debug_nans
    jax.config.update("jax_disable_jit", True)
    jax.config.update("jax_debug_nans", True)
    try:
        np.testing.assert_array_equal(numbers(data), plain)
    finally:
        jax.config.update("jax_disable_jit", before[0])
        jax.config.update("jax_debug_nans", before[1])


def test_the_settings_outside_are_untouched(data):
    before = dict(jax.config.values)
    with own_settings():
        pass
    assert dict(jax.config.values) == before
    assert jnp.ones(1).dtype == jnp.float32


def test_called_while_the_user_traces(data, plain):
    """The data are no tracers: the call gives its numbers as ever, constants of the user's trace."""
    found = []

    @jax.jit
    def traced(a):
        found.append(numbers(data))
        return a + found[0].sum()

    traced(1.0)
    np.testing.assert_array_equal(found[0], plain)


def test_a_traced_argument_is_refused_by_name(data):
    fit = jaxmed.mediate(data, **ROLES)
    for call in (lambda a: fit.effects(level=a), lambda a: fit.bootstrap(10, seed=a), lambda a: fit.tidy(level=a)):
        with pytest.raises(jaxmed.InputError, match=r"level=|seed="):
            jax.jit(call)(0.5)


# --------------------------------------------------------------------------------------------------------- forks

FORK = """
import multiprocessing, warnings
import jaxmed
from jaxmed.inference.weights import weights
warnings.simplefilter("ignore")
data = jaxmed.datasets.split_model(n_clusters=40).data

def said(call):
    try:
        return str(call())
    except jaxmed.ProcessError as error:
        return str(error)

def child(pipe):
    pipe.send([
        said(lambda: jaxmed.mediate(data, x="x", m="m", y="y", cluster="id").bootstrap(10, progress=False)),
        said(lambda: jaxmed.lmm("m ~ x + (1 | id)", data).bootstrap(10, progress=False)),
        said(lambda: weights("cluster", 1, 0, 4, 10).sum()),
        said(lambda: jaxmed.lmm("m ~ x + (1 | id)", data).converged),  # fits are done on the host
        said(lambda: jaxmed.mediate(data, x="x", m="m", y="y", cluster="id").converged),
    ])

def of_a_child():
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,))
    process.start()
    assert ours.poll(60), "the child hangs"
    found = ours.recv()
    process.join(10)
    return found

weights("cluster", 1, 0, 4, 10)
*refused, mixed, mediation = of_a_child()
assert all("get_context('spawn')" in text for text in refused), refused
assert (mixed, mediation) == ("True", "True")
assert weights("cluster", 1, 0, 4, 10).sum() == 40  # the parent goes on
print("fine")
"""

FORK_FIRST = """
import multiprocessing
import jaxmed
from jaxmed.inference.weights import weights

def child(pipe):
    pipe.send(float(weights("cluster", 1, 0, 4, 10).sum()))

context = multiprocessing.get_context("fork")
ours, theirs = context.Pipe()
context.Process(target=child, args=(theirs,)).start()
assert ours.poll(60) and ours.recv() == 40
print("fine")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("code", [FORK, FORK_FIRST], ids=["after JAX has run", "before"])
def test_a_forked_process_works_or_says_why_not(code):
    environment = os.environ | {"PYTHONPATH": str(Path(jaxmed.__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=200, check=False)
    assert done.stdout.strip() == "fine", done.stderr

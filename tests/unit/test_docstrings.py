"""The examples in docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import matplotlib as mpl
import pytest

import jaxmed

mpl.use("Agg")

import matplotlib.pyplot as plt

MODULES = [m.name for m in pkgutil.walk_packages(jaxmed.__path__, "jaxmed.") if m.name != "jaxmed.demo"]
EXAMPLES = [
    (f"{name.removeprefix('jaxmed.')}: {test.name.removeprefix(name + '.')}", test)
    for name in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name))
    if test.examples
]


def test_examples_are_found():
    assert len(EXAMPLES) > 60


SLOW = ("power: power",)  # compiles what no other example uses


@pytest.mark.parametrize(
    "example", [pytest.param(test, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, test in EXAMPLES]
)
def test_an_example_prints_what_it_says(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not said, "".join(said)
    plt.close("all")

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


@pytest.mark.parametrize("example", [test for _, test in EXAMPLES], ids=[name for name, _ in EXAMPLES])
def test_an_example_prints_what_it_says(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not said, "".join(said)
    plt.close("all")

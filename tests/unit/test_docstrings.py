"""The examples in docstrings run and print what they say, after the lines that docs/api.md begins with."""

import ast
import doctest
import functools
import importlib
import pkgutil
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
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
API = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
SET_UP = ast.parse(re.search(r"```python\n(.*?)```", API, re.DOTALL)[1]).body
MADE = {line.targets[0].id: line.value for line in SET_UP if isinstance(line, ast.Assign)}


def used(source):
    """The names that a piece of source reads and does not make."""
    names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)]
    return {node.id for node in names} - {node.id for node in names if isinstance(node.ctx, ast.Store)}


@functools.cache
def made(name):
    """A value of the set-up; each is made once, when an example first needs it."""
    source = ast.unparse(MADE[name])
    return eval(source, given(source))


def given(source):
    """What the set-up gives to a piece of source."""
    values = {name: made(name) for name in used(source) & MADE.keys()}
    frames = {name: value.copy() for name, value in values.items() if isinstance(value, pd.DataFrame)}
    return {"jaxmed": jaxmed, "np": np, "pd": pd} | values | frames


def test_examples_are_found():
    assert len(EXAMPLES) > 60


def test_the_set_up_is_that_of_the_documentation():
    assert list(MADE) == ["data", "fit", "boot", "mixed", "mixed_boot", "table"]
    assert [ast.unparse(line) for line in SET_UP[:3]] == ["import jaxmed", "import numpy as np", "import pandas as pd"]


SLOW = ("power: power",)  # compiles what no other example uses


@pytest.mark.parametrize(
    "example", [pytest.param(test, id=name, marks=[pytest.mark.slow] if name in SLOW else []) for name, test in EXAMPLES]
)
def test_an_example_prints_what_it_says(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example.globs = example.globs | given("\n".join(line.source for line in example.examples))
    said = []
    doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(example, out=said.append)
    assert not said, "".join(said)
    plt.close("all")

"""Run by ``make dist`` with the Python of an empty environment that has the wheel and what it asks for, nothing else."""

import sys
import tempfile
import warnings
from importlib.metadata import files, version
from pathlib import Path

warnings.simplefilter("error")

import jaxmed as jm  # noqa: E402

assert Path(jm.__file__).is_relative_to(sys.prefix), f"{jm.__file__} is not the wheel's"
assert jm.__version__ == version("jaxmed")
assert "jax" not in sys.modules, "the import brings JAX with it"
names = {str(file) for file in files("jaxmed") or ()}
assert "jaxmed/py.typed" in names
assert any(name.endswith("licenses/LICENSE") for name in names)
strange = {name.split("/")[0] for name in names} - {"jaxmed", f"jaxmed-{version('jaxmed')}.dist-info"}
assert not strange, f"the wheel has {sorted(strange)}"

data = jm.datasets.split_model().data
fit = jm.mediate(data, x="x", m="m", y="y", cluster="id")
boot = fit.bootstrap(300, seed=1, progress=False)
with tempfile.TemporaryDirectory() as folder:
    fit.to_html()
    boot.tidy().to_csv(Path(folder) / "table.csv")
said = ""
try:
    boot.plot("path")
except jm.InputError as error:
    said = str(error)
assert "matplotlib" in said, "a figure without matplotlib says what to install"
print(jm.lmm("m ~ x + (1 | id)", data).fixef())
print(boot.tidy().head(3))

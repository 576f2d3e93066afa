"""The floors of the house: who may import whom, read from the source; and importing changes no setting of JAX."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxmed.reml

ROOT = Path(jaxmed.reml.__file__).parent.parent
# they import nothing of jaxmed but each other
FOUNDATION = ("arguments", "calls", "errors", "files", "datasets", "progress", "version")
FLOORS = ("design", "reml", "inference", "report")  # each imports only from itself and those before it; then the verbs


def name_of(path: Path) -> str:
    parts = ("jaxmed", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """Everything a module imports, wherever in the file: modules of jaxmed by full name, others as written."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in MODULES else base)
    return found


GRAPH = {module: imports(module) for module in MODULES}


def within(module: str) -> set[str]:
    return {name for name in GRAPH[module] if name in MODULES}


def reachable(module: str) -> set[str]:
    """All modules of jaxmed that importing this one runs, packages' own files included, jaxmed's first one apart."""
    seen, frontier = set(), {module}
    while frontier:
        seen |= frontier
        step = set().union(*(within(m) for m in frontier))
        step |= {parent for m in frontier if (parent := m.rpartition(".")[0]) in MODULES and parent != "jaxmed"}
        frontier = step - seen
    return seen


def packages(module: str) -> set[str]:
    return {name.partition(".")[0] for name in GRAPH[module]}


def floor(module: str) -> int:
    part = module.split(".")[1] if "." in module else ""
    if part in FOUNDATION:
        return -1
    return FLOORS.index(part) if part in FLOORS else len(FLOORS)


def test_the_source_was_found():
    assert {f"jaxmed.{name}" for name in FLOORS} <= set(MODULES)
    assert "jaxmed.reml.arrays" in within("jaxmed.reml.criterion")


@pytest.mark.parametrize("module", [m for m in MODULES if floor(m) in (FLOORS.index("reml"), FLOORS.index("inference"))])
def test_no_pandas_in_the_numerical_core(module):
    for used in reachable(module):
        assert "pandas" not in packages(used), f"{module} reaches {used}, which imports pandas"


@pytest.mark.parametrize("module", [m for m in MODULES if floor(m) == FLOORS.index("design")])
def test_no_jax_in_the_table_code(module):
    for used in reachable(module):
        assert not packages(used) & {"jax", "jaxlib", "optax"}, f"{module} reaches {used}, which imports jax"


@pytest.mark.parametrize("module", MODULES)
def test_floors_import_one_way(module):
    for used in within(module):
        assert floor(used) <= floor(module), f"{module} imports {used} from a floor above it"


def test_no_import_cycles():
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module in done:
            return
        path.append(module)
        for used in sorted(within(module)):
            visit(used)
        path.pop()
        done.add(module)

    for module in MODULES:
        visit(module)


def test_importing_leaves_jax_as_it_is():
    """Every module of the floors, in a fresh process: 64-bit floats stay off, and no device is started."""
    modules = [m for m in MODULES if m.split(".")[-1] not in ("__main__", "demo")]
    code = f"""
import importlib, jax
before = dict(jax.config.values)
for name in {modules!r}:
    importlib.import_module(name)
after = dict(jax.config.values)
changed = {{k: (v, after[k]) for k, v in before.items() if after[k] != v}}
assert not changed, changed
assert not jax.config.jax_enable_x64
assert not jax._src.xla_bridge._backends, "importing jaxmed started a backend"
"""
    environment = {k: v for k, v in __import__("os").environ.items() if k != "JAX_ENABLE_X64"}
    environment["PYTHONPATH"] = str(ROOT.parent)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr

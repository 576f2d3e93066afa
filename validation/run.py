"""Execute the notebooks of this folder: python validation/run.py [NAME ...]

Each percent-format script becomes build/validation/NAME.ipynb and NAME.html, executed; what it printed as pass or
FAIL lines is repeated here. The exit status is 1 if a notebook did not run to its end.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "build" / "validation"


def main(names: list[str]) -> int:
    sources = [HERE / f"{name}.py" for name in names] or sorted(set(HERE.glob("*.py")) - {Path(__file__).resolve()})
    OUTPUT.mkdir(parents=True, exist_ok=True)
    passed = [execute(source) for source in sources]
    return 0 if all(passed) else 1


def execute(source: Path) -> bool:
    """Run a notebook in this environment's kernel, from the root of the repository; write it out in any case."""
    started = time.perf_counter()
    notebook = jupytext.read(source)
    client = NotebookClient(notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": HERE.parent}})
    error = None
    try:
        client.execute()
    except CellExecutionError as caught:
        error = caught
    nbformat.write(notebook, OUTPUT / f"{source.stem}.ipynb")
    html, _ = HTMLExporter().from_notebook_node(notebook)
    (OUTPUT / f"{source.stem}.html").write_text(html, encoding="utf-8")

    lines = [line for line in printed(notebook).splitlines() if line.startswith(("pass ", "FAIL "))]
    failed = [line for line in lines if line.startswith("FAIL ")]
    verdict = "does NOT hold" if failed else "did not run to its end" if error else "holds"
    print(f"{source.stem}: {verdict}; {len(lines) - len(failed)} checks pass, {len(failed)} fail ", end="")
    print(f"({time.perf_counter() - started:.0f} s, build/validation/{source.stem}.html)")
    for line in failed:
        print(" ", line)
    if error and not failed:
        print(error)
    sys.stdout.flush()
    return error is None


def printed(notebook: nbformat.NotebookNode) -> str:
    """Everything the notebook's cells wrote to standard output."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output["text"] for output in outputs if output.get("name") == "stdout")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

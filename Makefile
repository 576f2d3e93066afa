# make demo, make test, ...: each sets up .venv first and installs only what it needs.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
DATA := $(or $(JAXMED_SHARED_DATA),../shared/data)

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-lowest coverage lint bench validation docs dist clean

help:
	@echo "make demo        the main job on real data: minority status -> family SES -> maths, pupils in schools"
	@echo "make test        the tests: those that compile little, which are most of them"
	@echo "make test-full   the others (tests/full.py), some ten minutes"
	@echo "make test-lowest make test with the lowest versions of all that jaxmed needs, in .venv-lowest"
	@echo "make coverage    both, and which lines they run; HTML into build/coverage/"
	@echo "make lint        style (ruff) and types (pyright)"
	@echo "make bench       speed, time to first answer and scaling, with other programs timed in the same run"
	@echo "make validation  the slow tests and the validation notebooks; HTML into build/validation/"
	@echo "make docs        the documentation, its pages executed, into build/docs/"
	@echo "make dist        wheel and source archive into dist/, checked, and the wheel tried in an empty environment"
	@echo "make clean       remove .venv, build/ and caches"
	@echo "PYTHON=python3.12 make ... chooses the interpreter (3.11 or later; default python3)"

demo: $(VENV)/.installed
	$(PY) -m jaxmed.demo

test: $(VENV)/.group-test
	$(PY) -m pytest -m "not slow and not full"

test-full: $(VENV)/.group-test
	$(PY) -m pytest -m "full and not slow"

test-lowest:
	$(PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv-lowest/bin/python -m pip install --quiet --constraint tests/lowest.txt --editable . --group test
	.venv-lowest/bin/python -m pytest -m "not slow and not full"

coverage: $(VENV)/.group-test $(VENV)/.group-engines $(VENV)/.group-coverage
	$(PY) -m pytest --cov=jaxmed --cov-report=term --cov-report=html:build/coverage

lint: $(VENV)/.group-lint $(VENV)/.group-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)

bench: $(VENV)/.group-validation
	JAXMED_SHARED_DATA="$(DATA)" $(PY) -m bench.run

validation: $(VENV)/.group-validation $(VENV)/.group-test
	$(PY) -m pytest -m slow
	JAXMED_SHARED_DATA="$(DATA)" $(PY) validation/run.py

docs: $(VENV)/.group-docs
	$(PY) -m sphinx -E -W --keep-going -q -d build/doctrees -b html docs build/docs
	@echo "build/docs/index.html"

dist: $(VENV)/.group-dist
	rm -rf dist build/wheel
	$(PY) -m build --outdir dist
	$(PY) -m twine check --strict dist/*
	$(PYTHON) -m venv --clear build/wheel
	build/wheel/bin/python -m pip install --quiet dist/jaxmed-*.whl
	cd build/wheel && bin/python ../../tests/wheel.py

clean:
	rm -rf $(VENV) .venv-lowest build dist .coverage* .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: .installed is the package with its examples, .group-* one dependency group of pyproject.toml each.
# pip learned --group in 25.1, and a new venv brings whatever pip came with Python: bring it up to date first.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "jaxmed needs Python 3.11 or later, this is " + sys.version.split()[0] + ": make ... PYTHON=python3.11")'
	$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --upgrade "pip>=25.1"
	$(PY) -m pip install --quiet --editable ".[examples]"
	touch $@

$(VENV)/.group-%: $(VENV)/.installed
	$(PY) -m pip install --quiet --group $*
	touch $@

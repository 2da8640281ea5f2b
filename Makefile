# make demo | check | test | docs | lint | bench | calibrate | fuzz | soak | sbom | clean. Each makes .venv on first use; PYTHON picks the interpreter.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := images/constraints.txt

# Bytecode is kept: without it each process compiles chexray and the tests anew.
unexport PYTHONDONTWRITEBYTECODE
# A finished run is made by one process and read by all of its tests (tests/grouping.py).
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
PURE := not ray and not cluster and not calibration and not slow

.PHONY: demo check pure test docs lint bench calibrate fuzz soak sbom clean

demo: $(VENV)/.installed
	$(BIN)/chexray run configs/quickstart.yaml

# At every save: all that needs no Ray and no patience.
check: $(VENV)/.installed-test
	$(MAKE) --no-print-directory -j2 lint pure

pure: $(VENV)/.installed-test
	$(PYTEST) -m "$(PURE)"

test: $(VENV)/.installed-test lint
	$(PYTEST) --durations=15

# The site of docs/, with the reference generated from the program: open build/site/index.html.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.installed-test
	$(BIN)/python tests/bench $(BENCH)

# Simulations behind the rates that docstrings state; hours, or minutes with CALIBRATE="--quick floors".
calibrate: $(VENV)/.installed-test
	$(BIN)/python tests/calibration $(CALIBRATE)

# Minutes to half an hour; FUZZ="--n 500 --kind tables" narrows it.
fuzz: $(VENV)/.installed-test
	$(BIN)/python tests/fuzz $(FUZZ)

# Two runs at once, runs that are killed, a cluster that grows: about an hour; SOAK="--quick together" narrows it.
soak: $(VENV)/.installed-test
	$(BIN)/python tests/soak $(SOAK)

# What is installed in .venv, as CycloneDX; the images have their own (images/README.md).
sbom: $(VENV)/.installed build/sbom/.installed
	@mkdir -p out
	build/sbom/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file out/sbom.cdx.json $(BIN)/python

clean:
	rm -rf $(VENV) out build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"chexray needs Python 3.11 to 3.13, this is {v.major}.{v.minor}: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[test]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml $(CONSTRAINTS) | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	@touch $@ $(VENV)/.installed

build/sbom/.installed: images/lock/pip.txt images/lock/sbom.txt | $(VENV)/bin/python
	$(BIN)/python -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r images/lock/pip.txt
	build/sbom/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r images/lock/sbom.txt
	@touch $@

# make demo | test | lint | bench | calibrate | fuzz | soak | sbom | clean. Each makes .venv on first use; PYTHON picks the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONSTRAINTS := images/constraints.txt

.PHONY: demo test lint bench calibrate fuzz soak sbom clean

demo: $(VENV)/.installed
	$(BIN)/chexray run configs/quickstart.yaml

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.installed-test
	$(BIN)/python tests/bench

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

build/sbom/.installed: images/lock/pip.txt images/lock/sbom.txt | $(VENV)/bin/python
	$(BIN)/python -m venv build/sbom
	build/sbom/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r images/lock/pip.txt
	build/sbom/bin/python -m pip install --quiet --require-hashes --only-binary :all: -r images/lock/sbom.txt
	@touch $@

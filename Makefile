# The commands of this project. `make demo` and `make test` work on a fresh machine that has
# Python 3.11 or later, gcc, g++ and make.

PYTHON ?= python3
VENV   ?= .venv
# The CPU build where the installed packages come from offers one; another torch in the range of
# pyproject.toml does as well: make demo TORCH=torch==2.12.0
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: help install demo demo-pegasus test check docs format clean

help:
	@echo "make install  a virtual environment in $(VENV) with the package and its tools"
	@echo "make demo     documents to a pretrained tiny BigBird in Hub format, on 2 CPU processes"
	@echo "make demo-pegasus   the same for a BigBirdPegasus, which writes the sentences taken out"
	@echo "make test     everything that must pass: check, then the test suite"
	@echo "make check    ruff (format and lint) and mypy"
	@echo "make docs     write docs/config.md anew"
	@echo "make format   let ruff rewrite what it can"
	@echo "make clean    remove the demo, caches and the virtual environment"

install: $(READY)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev,plot]"
	touch $@

# The virtual environment's folder must be on PATH: DeepSpeed looks for ninja there. What it
# compiles is kept in the environment, apart from that of other environments.
RUN    := PATH="$(abspath $(BIN)):$$PATH" TORCH_EXTENSIONS_DIR="$(abspath $(VENV))/torch_extensions"

demo: $(READY)
	$(RUN) bash launch/demo.sh

demo-pegasus: $(READY)
	$(RUN) bash launch/demo_pegasus.sh

test: check
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m bigbird_ds.training.config.reference > docs/config.md

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf demo demo-pegasus .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info $(VENV)

# The commands of this project. `make demo` and `make test` work on a fresh machine that has
# Python 3.11 or later; the tests of torch.compile need g++ too.

PYTHON ?= python3
VENV   ?= .venv
# All other packages come from the lock, $(LOCK). Which build of these two fits depends on the
# machine: the CPU build where the package index offers one, or another version in the range of
# pyproject.toml: make demo TORCH=torch==2.12.0. A torch for CUDA brings its own triton.
TORCH  ?= torch==2.13.0
TRITON ?= triton==3.9.0
LOCK   := requirements/py311.txt
TESTS  ?= tests
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO_READY := $(VENV)/.demo-ready

.PHONY: help install demo demo-pegasus test test-hosts test-slurm test-image test-newest test-with soak test-export-versions lock check docs docs-site recipes-check format clean

help:
	@echo "make install  create the virtual environment $(VENV) with the package and its tools"
	@echo "make demo     from documents to a tiny pretrained BigBird in Hub format, on 2 CPU processes"
	@echo "make demo-pegasus   the same for BigBirdPegasus, which generates removed sentences"
	@echo "make test     everything that must pass: check, then the test suite"
	@echo "make test-hosts   runs on two hosts, which are network namespaces with sshd; needs root"
	@echo "make test-slurm   the job scripts on a real SLURM with two nodes; needs root"
	@echo "make test-image   each line of docker/Dockerfile in a chroot, and runs in it; needs root"
	@echo "make soak     20 minutes of real runs with faults at random moments; MINUTES=, SEED="
	@echo "make test-newest   the tests on the newest release of everything; reports what broke"
	@echo "make test-with WITH='transformers==4.57.6'   the tests on the locked versions, except these"
	@echo "make lock     update the locked versions, $(LOCK)"
	@echo "make test-export-versions   check that the oldest and newest transformers load the exports"
	@echo "make check    ruff (format and lint) and mypy"
	@echo "make docs     regenerate docs/config.md, and comments and JSON schema of configs/run/"
	@echo "make docs-site   build the documentation and API reference as a web site, in site/"
	@echo "make recipes-check   run the commands of recipes/ in a short form"
	@echo "make format   apply ruff's formatting and fixes"
	@echo "make clean    remove the demo, caches and the virtual environment"

install: $(READY)

# Environment variables, because pip then uses the locked versions for its isolated builds of
# source packages too; each release of pip reads one of the two.
LOCKED := PIP_CONSTRAINT="$(abspath $(LOCK))" PIP_BUILD_CONSTRAINT="$(abspath $(LOCK))"
INSTALL := $(LOCKED) $(BIN)/python -m pip install --quiet

$(READY): pyproject.toml $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) "$(TORCH)"
	$(BIN)/python -c "import triton" 2>/dev/null || $(INSTALL) "$(TRITON)"
	$(INSTALL) --editable ".[dev,remote]"
	touch $@ $(DEMO_READY)

lock:
	$(PYTHON) requirements/lock.py "$(TORCH)" "$(TRITON)"

# The commands of the environment (deepspeed, bigbird-ds) come first.
RUN    := PATH="$(abspath $(BIN)):$$PATH"

# Without the tools of `make install`.
$(DEMO_READY): pyproject.toml $(LOCK)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) "$(TORCH)"
	$(INSTALL) --editable ".[demo]"
	touch $@

demo: $(DEMO_READY)
	$(RUN) bash launch/demo.sh

demo-pegasus: $(DEMO_READY)
	$(RUN) bash launch/demo_pegasus.sh

test: check
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests

# All three need root and Debian or Ubuntu, and install the packages that they name. The first makes two
# network namespaces with sshd, the second starts a SLURM of its own, the third runs docker/Dockerfile in a
# chroot; all end and remove what they started.
test-hosts: $(READY)
	@test "$$(id -u)" != 0 || apt-get install --yes --no-install-recommends --quiet=2 \
	  openssh-server iproute2 pdsh >/dev/null
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/clusters/test_hosts.py

test-slurm: $(READY)
	@test "$$(id -u)" != 0 || apt-get install --yes --no-install-recommends --quiet=2 \
	  slurm-wlm munge >/dev/null
	$(RUN) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster tests/clusters/test_slurm.py

# MIRROR is Debian's, unless it is set; pip takes the indexes that it has here.
test-image: $(READY)
	@test "$$(id -u)" != 0 || apt-get install --yes --no-install-recommends --quiet=2 \
	  debootstrap iproute2 >/dev/null
	$(RUN) TORCH="$(TORCH)" $(BIN)/python -m pytest -s -m cluster tests/clusters/test_image.py

# Writes its result to benchmarks/results/soak.json and docs/reliability.md. Without root, the fault
# of a full disk is left out.
MINUTES ?= 20
SEED    ?= 1

soak: $(READY)
	$(RUN) PYTHONPATH=.:tests OMP_NUM_THREADS=1 $(BIN)/python -m soak --minutes $(MINUTES) --seed $(SEED) \
	  --json benchmarks/results/soak.json --table docs/reliability.md

test-newest:
	$(PYTHON) requirements/try_versions.py --torch "$(TORCH)" --triton "$(TRITON)" --tests "$(TESTS)"

test-with:
	$(PYTHON) requirements/try_versions.py --torch "$(TORCH)" --triton "$(TRITON)" --tests "$(TESTS)" $(WITH)

# Also checks the exports of the demos, if these were run.
test-export-versions: $(READY)
	$(RUN) $(BIN)/python tests/versions/check_exports.py \
	  $(patsubst %/config.json,%,$(wildcard demo/export/config.json demo-pegasus/export/config.json))

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/python -m bigbird_ds.training.config.reference > docs/config.md
	$(BIN)/python -m bigbird_ds.training.config.schema > configs/run/schema.json
	$(BIN)/python -m bigbird_ds.training.config.annotate

$(BIN)/mkdocs: $(READY)
	$(INSTALL) --editable ".[docs]"
	touch $@

docs-site: $(BIN)/mkdocs
	$(RUN) $(BIN)/mkdocs build

# Needs the network for two recipes: apt-get downloads Japanese manuals and genomes.
recipes-check: $(READY)
	$(RUN) $(BIN)/python recipes/check.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf demo demo-pegasus .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist site *.egg-info $(VENV)

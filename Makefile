# Two commands for a new user: `make demo` and `make test`.
# PYTHON: the interpreter to build the environment with (3.11 to 3.13).
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= dev,serving,serve
# uv where it is there, else venv + pip. EXTRAS=gpu,dev,serving installs CUDA too.
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test test-slow test-learn test-faults bench run-bench lint clean

# A stamp per set of extras, so that another set is installed on top.
comma := ,
STAMP := $(VENV)/.installed-$(subst $(comma),-,$(EXTRAS))

$(STAMP): pyproject.toml
	@echo "Creating the environment in $(VENV) ..."
ifdef UV
	@test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) $(VENV)
	@uv pip install --quiet --python $(BIN)/python -e '.[$(EXTRAS)]'
else
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
endif
	@touch $@

## demo: train, evaluate, predict, export and serve-load the embedded digits
demo: $(STAMP)
	@$(BIN)/python -m visionkit.demo

## test: the default suite, a file at a time in each of two processes
test: $(STAMP)
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

## test-slow: cross products over all backbones and long runs
test-slow: $(STAMP)
	@$(BIN)/python -m pytest -m slow

## test-learn: real trainings to stated figures
test-learn: $(STAMP)
	@$(BIN)/python -m pytest -m learn

## test-faults: kills, full disks, broken inputs, fuzzing and leaks; under an hour
test-faults: $(STAMP)
	@$(BIN)/python -m pytest -m faults

## bench: side by side with other libraries, 45 minutes on a quiet machine; writes a
## dated table to benchmarks/results. BENCHES="C7 C8" for some of them
bench:
	@$(MAKE) --no-print-directory EXTRAS='$(EXTRAS),bench' run-bench

run-bench: $(STAMP)
	@$(BIN)/python -m benchmarks $(BENCHES)

lint: $(STAMP)
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) build dist *.egg-info

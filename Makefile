# make demo | test | bench | bench-serving | lint: each sets up its own virtual environment first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

export TF_USE_LEGACY_KERAS := 1

.PHONY: demo test bench bench-serving lint lock clean

# pip verifies every file of the lock against its hash; the package itself is installed in place.
$(READY): requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(READY)
	$(BIN)/tfmmrank demo --out demo

test: $(READY)
	$(BIN)/python -m pytest

bench: $(READY)
	$(BIN)/tfmmrank demo --out demo
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.pages

bench-serving: $(READY)
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.pages

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# uv resolves for every supported Python at once; the lock carries hashes and no index address. The marker that it puts on
# every line goes: elsewhere pip would install nothing and say nothing.
HERE := python_full_version < '3.14' and platform_machine == 'x86_64' and sys_platform == 'linux'
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.10 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header -o requirements.lock
	sed -i "s/ ; $(HERE)//; s/ and $(subst python_full_version < '3.14' and ,,$(HERE))//" requirements.lock

clean:
	rm -rf demo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# Each target sets up .venv as needed, and is cheap when repeated.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow fuzz soak schemas check clean

install: .venv/.installed

.venv/.installed: pyproject.toml explainkit/version.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

demo: install
	$(BIN)/explainkit demo

test: install
	$(BIN)/python -m pytest --quiet -n 2 --dist loadfile --no-loadscope-reorder

test-slow: install
	$(BIN)/python -m pytest --quiet -n 2 --dist loadfile --no-loadscope-reorder -m slow

fuzz: install
	$(BIN)/python -m pytest --quiet -n 2 --dist loadfile --no-loadscope-reorder -m "fuzz or not fuzz" tests/hostile

soak: install
	$(BIN)/python benchmarks/soak.py --threads 8 --calls 50

schemas: install
	$(BIN)/python -m explainkit.testing.json_schemas docs/schemas

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis runs
	find . -name __pycache__ -prune -exec rm -rf {} +

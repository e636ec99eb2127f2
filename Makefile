# The whole vocabulary; ./run.sh and ./test.sh stand above it.
.PHONY: fmt check test real chaos bench
BIN := .venv/bin

fmt:    ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check:  ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test:   ## the fast tests
	$(BIN)/pytest tests --ignore=tests/real -n 2 -q

real:   ## the tests against real Kafka, Redis and Connect
	$(BIN)/pytest tests/real -q

chaos:  ## an hour of faults upon faults, no verdict wrong. MINUTES=3: as long; SEED=17: that one again
	HEARTBEAT_CHAOS_MINUTES=$(or $(MINUTES),60) HEARTBEAT_TEST_SEED=$(SEED) $(BIN)/pytest tests/real/chaos/test_chaos.py -q -s

bench:  ## measure; writes bench/RESULTS.md. BENCH=startup: this figure only
	$(BIN)/python -m bench.run $(BENCH)

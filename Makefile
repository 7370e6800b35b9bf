# What people at a shell call. Each target installs what it needs on a fresh Debian 12 with Rust.
#
#   make demo    build, make a clip, run the main workflow on it to its end
#   make serve   run the appliance on http://127.0.0.1:8080 with a data directory under var/
#   make test    build and run every test
#   make bench   run the benchmarks
#   make soak MINUTES=n    seeded harm, side by side, for so long; RELIABILITY.md gets the figures
#   make soak SEED=rot:17  one of its cases again
#   make kernel  build and test the kernel and its simulator alone: no GStreamer, no Node, no browser

SHELL := /bin/bash
.DELETE_ON_ERROR:

WEB     := src/dashboard/web
VENV    := target/venv
NODE    := tests/api/node_modules/ready tests/dashboard/node_modules/ready
# cargo-nextest where it is installed; cargo's own runner runs the same tests.
RUNNER  := $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test)

# The kernel and what builds without media beside it; tests/tidy.rs reads this list and looks.
WITHOUT_MEDIA := base aws jsonata job asl interpreter store run services logs settings

.PHONY: demo serve test bench soak kernel build web lint deps test-deps clean

demo: build
	target/release/conveyor demo

serve: build
	mkdir -p var/shares/{incoming,outputs,archive,quarantine}
	target/release/conveyor serve --config configs/local.toml

build: deps web
	cargo build --release --locked

test: test-deps web lint
	cargo $(RUNNER) --workspace --locked --no-fail-fast

# The simulator stands with the crate that puts a box together.
kernel:
	@scripts/install-deps kernel
	cargo $(RUNNER) --locked $(WITHOUT_MEDIA:%=-p conveyor-%)
	cargo $(RUNNER) --locked -p conveyor-appliance --test sim

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench: deps web
	cargo bench --workspace --locked

soak: deps web
	@scripts/install-deps test
	CONVEYOR_SOAK_MINUTES="$(if $(SEED),,$(or $(MINUTES),10))" CONVEYOR_SOAK_SEED="$(SEED)" CONVEYOR_SOAK_ONLY="$(ONLY)" \
	  cargo bench --locked -p conveyor --bench soak

deps:
	@scripts/install-deps build

test-deps: $(VENV)/ready $(NODE)
	@scripts/install-deps test

# `npm install --no-save` and not `npm ci`: the lock files name no registry, and `npm ci` refuses such a lock's entries
# for other platforms.
$(NODE): tests/%/node_modules/ready: tests/%/package-lock.json
	@scripts/install-deps test
	cd tests/$* && npm install --no-save --no-audit --no-fund --loglevel=error
	touch $@

$(VENV)/ready: tests/requirements.txt
	@scripts/install-deps test
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

web: $(WEB)/dist/index.html

$(WEB)/dist/index.html: $(WEB)/package.json $(WEB)/package-lock.json $(shell find $(WEB)/src $(WEB)/index.html -type f 2>/dev/null)
	@scripts/install-deps build
	cd $(WEB) && npm install --no-save --no-audit --no-fund --loglevel=error && npm run --silent build
	touch $@

clean:
	cargo clean
	rm -rf $(WEB)/dist $(WEB)/node_modules var

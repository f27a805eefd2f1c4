# Sheath's commands. `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# A Rust toolchain from rustup is often not on the PATH of a script.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TARGET_DIR ?= $(CURDIR)/target
cache := $(or $(SHEATH_LAB_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sheath-lab)
# All that needs no guest.
fast := --lib --bins $(patsubst tests/%.rs,--test %,$(filter-out tests/kernel.rs tests/chassis.rs,$(wildcard tests/*.rs)))

# The tool that makes the package, pinned; kept outside the clone, so that a fresh one does not build it again.
cargo_deb_version := 3.8.0
cargo_deb := $(cache)/cargo-deb-$(cargo_deb_version)/bin/cargo-deb
version := $(shell sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
architecture = $(shell dpkg --print-architecture)
deb = $(CARGO_TARGET_DIR)/debian/sheath_$(version)_$(architecture).deb

# One phase: says what it does, and how long it took; the last lines of a run say where the time went.
phase := .ci/phase

.PHONY: help deps check test demo demo-shell bench deb clean

help: ## List the commands
	@echo "Sheath $(version). Needs git, make and Rust $$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer; the rest is installed with apt by 'make deps'."
	@sed -n 's/^\([a-z-]*\):.* ## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do printf '  make %-12s %s\n' "$$name" "$$what"; done

deps: ## Install what building and testing need (apt, through sudo when not root)
	@sh tests/lab/deps.sh all

check: ## Format, lints, documentation, fast tests: what every commit needs
	@sh tests/lab/deps.sh build
	@$(phase) --begin
	@$(phase) format cargo fmt --all --check
	@$(phase) clippy cargo clippy --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" $(phase) doc cargo doc --workspace --no-deps --document-private-items
	@$(phase) fast cargo test $(fast)
	@$(phase) --end

test: ## Everything, on real kernels in QEMU: unit, property, simulated, kernel and chassis tiers
	@$(phase) --begin
	@$(phase) deps sh tests/lab/deps.sh all
	@$(phase) deb $(MAKE) --no-print-directory deb
	@$(phase) --go-on fast cargo test --workspace $(fast)
	@SHEATH_DEB=$(deb) $(phase) --go-on kernel cargo test --test kernel -- --nocapture --test-threads=2
	@SHEATH_DEB=$(deb) $(phase) --go-on chassis cargo test --test chassis -- --nocapture
	@$(phase) --end

demo: deb ## Watch a diskless machine get its disk and boot (INTERACTIVE=1: you answer the prompt)
	@sh tests/lab/deps.sh all
	@SHEATH_DEB=$(deb) INTERACTIVE=$(INTERACTIVE) cargo run -q -p sheath-lab --bin lab -- demo

demo-shell: ## A shell on the appliance of a demo that runs
	@cargo run -q -p sheath-lab --bin lab -- shell

bench: deb ## Measure against bare system calls, targetctl and lvcreate (ONLY=lio.restore: only those figures)
	@sh tests/lab/deps.sh all
	@SHEATH_DEB=$(deb) ONLY=$(ONLY) cargo bench -q --bench figures

deb: $(cargo_deb) ## Build the Debian package
	@sh tests/lab/deps.sh build
	@cargo build --release --bins
	@config/debian/prepare $(CARGO_TARGET_DIR)/release/sheath $(version)
	@$(cargo_deb) --no-build --quiet
	@ls -l $(deb)

$(cargo_deb):
	@sh tests/lab/deps.sh build
	@echo "building cargo-deb $(cargo_deb_version) once, into $(cache)"
	@CARGO_TARGET_DIR=$(cache)/build-cargo-deb cargo install --quiet --locked --version $(cargo_deb_version) --root $(cache)/cargo-deb-$(cargo_deb_version) cargo-deb
	@rm -rf $(cache)/build-cargo-deb

clean: ## Remove what was built here (the lab's cache stays: rm -rf ~/.cache/sheath-lab)
	@cargo clean
	@rm -rf target/deb target/bench

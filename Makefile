# rhizome: see README.md for what it is, CONTRIBUTING.md for how to work on it.
SHELL := /bin/bash
export PATH := /usr/local/go/bin:$(HOME)/go/bin:$(PATH)
export CGO_ENABLED = 0

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT   ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
PACKAGES ?= ./...
PLATFORMS := linux/amd64 linux/arm64 freebsd/amd64 freebsd/arm64
# One go test process at a time may be heavy; two packages side by side fill
# two cores.
TESTFLAGS ?= -p 2
FUZZTIME  ?= 20s
GOLANGCI  := v2.15.0

.PHONY: help setup build man cross test unit race e2e lint fmt fuzz golden bench demo freebsd check clean

help: ## what each target does
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## /{printf "  %-8s %s\n", $$1, $$2}' Makefile

setup: ## install what building and testing need (Debian 12; as root)
	.ci/setup

build: ## the static binary, bin/rhizome, and beside it rhizome-node for the nodes of every platform
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/rhizome ./cmd/rhizome-node
	@for t in $(PLATFORMS); do \
	  GOOS=$${t%/*} GOARCH=$${t#*/} go build -trimpath -ldflags '$(LDFLAGS)' -o bin/rhizome-node-$${t%/*}-$${t#*/} ./cmd/rhizome-node || exit 1; \
	done

man: build ## manual pages and shell completion, into dist/
	mkdir -p dist/completion
	bin/rhizome man dist/man
	bin/rhizome-node man > dist/man/rhizome-node.8
	@for s in bash zsh fish; do bin/rhizome completion $$s > dist/completion/rhizome.$$s; done

cross: ## both systems, both architectures, into dist/
	@for t in $(PLATFORMS); do \
	  echo "building for $$t"; \
	  for p in rhizome rhizome-node; do \
	    GOOS=$${t%/*} GOARCH=$${t#*/} go build -trimpath -ldflags '$(LDFLAGS)' -o dist/$$p-$${t%/*}-$${t#*/} ./cmd/$$p || exit 1; \
	  done; \
	done

test: ## everything: unit, golden, fuzz seeds, CLI stories, real clients, QEMU boots
	.ci/gotest $(TESTFLAGS) -timeout 60m $(PACKAGES)

unit: ## the quick part of the tests: no root, no network, no QEMU
	go test -short $(TESTFLAGS) $(PACKAGES)

e2e: ## the QEMU boots alone
	.ci/gotest -timeout 60m -count=1 -v ./cmd/rhizome/e2e

race: ## the tests under the race detector (needs a C compiler)
	CGO_ENABLED=1 go test -race -short $(TESTFLAGS) $(PACKAGES)

lint: ## golangci-lint, go vet for every system, gofmt
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	GOFLAGS= go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI) run ./...

fmt: ## format the code
	gofmt -w .

fuzz: ## every fuzz target for FUZZTIME each
	.ci/fuzz $(FUZZTIME)

golden: ## write the golden files anew; look at the diff before you commit it
	RHIZOME_UPDATE_GOLDEN=1 go test -short -count=1 $(PACKAGES)

bench: build ## figures beside real peers, as ratios: see docs/benchmarks.md
	bench/run

demo: ## build, serve and boot two machines from nothing; needs root for the network
	.ci/setup demo
	$(MAKE) build
	go run ./cmd/rhizome/demo

freebsd: build ## the shipped FreeBSD recipe against a full tree: make freebsd SRC=/usr/src [TOOLCHAIN=...]
	RECIPE='$(RECIPE)' STORE='$(STORE)' packaging/freebsd-demo $(SRC) $(TOOLCHAIN)

check: ## what CI runs before the tests: vet on every system, lint, builds
	go vet ./...
	GOOS=freebsd go vet ./...
	GOOS=freebsd GOARCH=arm64 go build ./...
	GOARCH=arm64 go build ./...
	$(MAKE) lint

clean: ## remove what make made
	rm -rf bin dist

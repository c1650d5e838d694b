# SPDX-License-Identifier: Apache-2.0
BIN := bin
LDFLAGS := -s -w
FUZZTIME ?= 10s

.PHONY: help setup build check vet test demo fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

setup: ## install what building and testing need (Debian packages)
	@scripts/setup.sh

build: setup ## build the programs into bin/
	@mkdir -p $(BIN)
	go build -tags seccomp -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/openshell-runtime ./cmd/openshell-runtime
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/openshell ./cmd/openshell
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/openshell-launch ./hooks/launch

check: vet test ## what CI runs

vet: setup ## gofmt and go vet
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt: run gofmt -w on these"; exit 1; }
	go vet -tags seccomp ./...
	CGO_ENABLED=0 GOOS=darwin go vet ./policy ./libsandbox/landlock

test: build vet ## all tests; as root the kernel's, too
	go test -p 2 -count=1 -tags seccomp -v ./... > $(BIN)/test.log 2>&1; status=$$?; \
		grep -E '^(ok|FAIL|---? FAIL|panic)' $(BIN)/test.log; \
		grep -E -A3 '^ *--- (FAIL|SKIP)' $(BIN)/test.log || true; \
		echo "$$(grep -cE '^ *--- PASS' $(BIN)/test.log) passed, $$(grep -cE '^ *--- FAIL' $(BIN)/test.log) failed, $$(grep -cE '^ *--- SKIP' $(BIN)/test.log) skipped"; \
		exit $$status

demo: build ## run a sandbox and show what it refuses (needs root)
	@BIN=$(BIN) scripts/demo.sh

fuzz: setup ## fuzz every parser, FUZZTIME each
	@for t in FuzzParse FuzzNormalizeHost FuzzCanonicalPath; do go test ./policy -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) || exit 1; done

clean: ## remove what was built
	rm -rf $(BIN)

# SPDX-License-Identifier: Apache-2.0
comma := ,
BIN := bin
LDFLAGS := -s -w
# Without its documentation writer urfave/cli does not compile a Markdown parser's
# patterns at each start.
TAGS := seccomp,urfave_cli_no_docs
COMMIT := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 10s
SOAK ?= 10m

# What this machine has and no test may skip for want of (internal/testenv).
# Root has the rest by make setup; a way to the package registries is the
# machine's own: CI names that, too.
REQUIRE := $(if $(filter 0,$(shell id -u)),root$(comma)cgroups$(comma)docker$(comma)debian$(comma)compiler)
export OPENSHELL_TEST_REQUIRE ?= $(REQUIRE)

# The programs lie side by side: the runtime finds the others beside itself.
PREFIX ?= /usr/local
PROGRAMS := openshell openshell-runtime openshell-proxy openshell-launch openshell-refresher

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

# A line for each package, what a failed test printed, and at the end all that failed
# or was skipped, with the counts; every event is in test.json.
GOTESTSUM := gotest.tools/gotestsum@v1.13.0
# The first run makes a Debian root filesystem.
go_test = go run $(GOTESTSUM) --format pkgname-and-test-fails --format-icons text --jsonfile $(BIN)/test.json -- \
	-p 2 -timeout 20m -count=1 -tags seccomp

# Packages whose tests ask testenv what the machine has may need root; all others do not.
needs_root = $(shell go list $$(grep -rlE 'testenv\.(Require|Lacks)' --include='*_test.go' . | xargs -n1 dirname | sort -u))

.PHONY: help setup build static install uninstall check vet lint cover test test-unit test-root test-agents test-soak test-programs test-kernels test-runc-bats rootfs bench demo fuzz clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 17

setup: ## install what building and testing need (Debian packages)
	@scripts/setup.sh

define go-programs
CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/openshell ./cmd/openshell
CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/openshell-proxy ./cmd/openshell-proxy
CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/openshell-launch ./hooks/launch
CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/openshell-refresher ./cmd/openshell-refresher
endef

build: setup ## build the programs into bin/
	@mkdir -p $(BIN)
	go build -tags $(TAGS) -trimpath -ldflags '$(LDFLAGS) -X main.commit=$(COMMIT)' -o $(BIN)/openshell-runtime ./cmd/openshell-runtime
	$(go-programs)

static: setup ## build the programs into bin/ without any shared library
	@mkdir -p $(BIN)
	go build -tags $(TAGS),netgo,osusergo -trimpath -ldflags '$(LDFLAGS) -X main.commit=$(COMMIT) -linkmode external -extldflags -static' \
		-o $(BIN)/openshell-runtime ./cmd/openshell-runtime
	$(go-programs)

install: ## install what was built, below DESTDIR if set, into PREFIX
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/openshell'
	install -m 0755 $(addprefix $(BIN)/,$(PROGRAMS)) '$(DESTDIR)$(PREFIX)/bin/'
	install -m 0644 docs/config.yaml '$(DESTDIR)$(PREFIX)/share/openshell/'

uninstall: ## remove what install installed
	rm -f $(foreach p,$(PROGRAMS),'$(DESTDIR)$(PREFIX)/bin/$(p)') '$(DESTDIR)$(PREFIX)/share/openshell/config.yaml'
	rmdir '$(DESTDIR)$(PREFIX)/share/openshell' || true

check: vet lint test ## everything that a change must pass

vet: setup ## gofmt and go vet
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt: run gofmt -w on these"; exit 1; }
	go vet -tags seccomp ./...
	CGO_ENABLED=0 GOOS=darwin go vet ./policy ./libsandbox/landlock ./libsandbox/plan ./libsandbox/operator ./libsandbox/state ./cmd/openshell

lint: setup ## golangci-lint (.golangci.yml) and govulncheck; minutes the first time
	go run $(GOLANGCI_LINT) run ./...
	@scripts/vulnerabilities.sh $(GOVULNCHECK)

cover: setup ## every statement of policy/, the judge, must be tested
	@out=$$(go test -cover ./policy) || { echo "$$out"; exit 1; }; echo "$$out"; \
	case $$out in *'coverage: 100.0% of statements'*) ;; *) echo "cover: see go test -coverprofile"; exit 1;; esac

test: build vet cover ## all tests; as root the kernel's, too
	$(go_test) ./...

test-unit: setup ## the tests that need no root, in seconds
	@mkdir -p $(BIN)
	$(go_test) $(filter-out $(needs_root),$(shell go list ./...))

test-root: build ## the tests that may need root
	$(go_test) $(needs_root)

test-agents: build ## agents from npm in sandboxes, without keys (root; 1.7 GB from npm, once)
	OPENSHELL_TEST_REQUIRE=$(REQUIRE),registries,agents go test -count=1 -timeout 30m -tags seccomp -v ./integration -run 'TestBypass_B63_B64_Agents'

test-soak: build ## everything usual at once, for SOAK, in sandboxes whose policy changes (root)
	OPENSHELL_TEST_REQUIRE=$(REQUIRE) OPENSHELL_TEST_SOAK=$(SOAK) go test -count=1 -timeout 24h -parallel 4 -tags seccomp -v ./integration -run 'Test(Docker)?Soak'

test-programs: build ## ordinary commands under runc and in sandboxes (root, 10 minutes; PROGRAMS=REGEXP, PROGRAMFLAGS)
	@scripts/runc.sh $(BIN)
	@CGO_ENABLED=0 go build -trimpath -o $(BIN)/programs ./integration/programs
	@$(BIN)/programs -bin $(BIN) $(PROGRAMFLAGS)

test-kernels: ## the kernel's tests on Debian's 6.1 in qemu (10 minutes)
	scripts/kernel.sh

rootfs: setup ## make the Debian root filesystem of the tests and print where it is (needs root)
	@scripts/rootfs.sh

test-runc-bats: build ## runc's own test suite, as plain runc and as sandboxes (root, 15 minutes)
	@scripts/setup.sh bats
	BIN=$(BIN) integration/conformance/runc-bats.sh none
	BIN=$(BIN) integration/conformance/runc-bats.sh sandbox

bench: build ## measure speed and memory beside runc, squid and others (root, 5 minutes; BENCHFLAGS)
	@scripts/bench-peers.sh $(BIN)
	@CGO_ENABLED=0 go build -trimpath -o $(BIN)/bench ./integration/bench
	@$(BIN)/bench -bin $(BIN) $(BENCHFLAGS)

demo: build ## run a sandbox and show what it allows, refuses and why (root)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./integration/probe ./integration/demo/...
	@$(BIN)/demo -bin $(BIN)

fuzz: setup ## fuzz every parser, FUZZTIME each
	scripts/fuzz.sh $(FUZZTIME)

clean: ## remove what was built
	rm -rf $(BIN) build

# gitopsd: make demo shows it, make test checks it. Both need only Go and git.

GO      ?= go
BIN     := bin/gitopsd
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
COMMIT  ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)

# The race detector needs cgo, and that a C compiler; without one the tests run without it.
RACE := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

.PHONY: help build demo run test test-crash test-host verify-full lint bench fuzz generate clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

build: ## build bin/gitopsd, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/gitopsd

demo: build ## play the whole story on real files and a real Git repository in a temporary folder
	examples/demo.sh $(BIN)

run: build ## start the daemon on examples/repo in .run/ and stay
	examples/run.sh $(BIN)

test: build ## everything that needs only Go and git: unit, conformance, stories, Rego; with the race detector where there is a C compiler
	$(if $(RACE),,@echo "no C compiler: the tests run without the race detector")
	$(GO) test $(RACE) -timeout 30m $(TESTFLAGS) ./...
	$(BIN) policy test examples/repo/policies
	$(BIN) policy test policies/library/host-files

lint: ## gofmt, vet, staticcheck, layers
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$unformatted" ] || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags failpoint ./cmd/gitopsd
	$(GO) vet -tags failpoint,host ./cmd/gitopsd
	$(GO) tool staticcheck ./...
	$(GO) tool staticcheck -tags failpoint,host ./cmd/gitopsd
	$(GO) test -count=1 ./internal/layering

test-crash: ## kill the real daemon KILLS times (500), at every named effect and at random, and check what the next one does
	$(GO) test -tags failpoint -count=1 -timeout 60m $(TESTFLAGS) -run TestCrash ./cmd/gitopsd -args -crash.kills=$(or $(KILLS),500)

# The tests mount file systems; what they leave mounted ends with their namespace.
test-host: ## as root: faults under a real nginx and its visitors, and system calls that fail; installs nginx-light and strace when missing
	.ci/install nginx=nginx-light strace=strace
	$(GO) test -tags failpoint,host -count=1 -timeout 60m -parallel 4 $(TESTFLAGS) -exec 'unshare --mount --propagation private' \
		-run '^Test(Golden|Strace|StoreDamaged)' ./cmd/gitopsd -args $(HOSTFLAGS)

verify-full: ## what takes hours: every shard, or SHARD=NAME of .ci/verify-full
	.ci/verify-full $(SHARD)

bench: ## benchmarks, readable by benchstat
	$(GO) test -run '^$$' -bench . -benchmem -count $(or $(COUNT),1) ./...

fuzz: ## every fuzz target for FUZZTIME (10s) each, or those of PART (1/3); what fails becomes a test under testdata/fuzz
	@grep -rn --include='*_test.go' '^func Fuzz' . | sed -E 's|^(.*)/[^/]*:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*|\1 \2|' | sort | \
	awk -v part=$(or $(PART),1/1) 'BEGIN { split(part, p, "/") } NR % p[2] == p[1] % p[2]' | \
	while read -r dir target; do \
		echo "$$dir $$target"; \
		$(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(or $(FUZZTIME),10s) -fuzzminimizetime 1s "$$dir" || exit 1; \
	done

generate: ## protobuf and Connect code from api/
	cd api && $(GO) tool -modfile=../tools/go.mod buf generate
	cd api && sha256sum gitopsd/v1alpha1/*.proto gitopsd/v1alpha1/*.go gitopsd/v1alpha1/*/*.go > generated.sum

clean: ## remove what was built
	rm -rf bin .run

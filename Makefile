# Everything that a developer does here. "make" alone prints the list.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

# Image is the name of the built image; PUSH, if set, is where it is pushed to.
IMAGE ?= localhost/eks-hybrid-dra:dev
PUSH ?=
# How many times each fuzz test runs. A number of runs, not a time: at the end of a time Go's fuzzer sometimes fails
# with "context deadline exceeded" though it found nothing (golang/go#51484).
FUZZTIME ?= 300000x
# How many minutes each test of "make soak" takes.
SOAK_MINUTES ?= 15
# How many minutes kube-scheduler and the controller race in "make soak".
RACE_MINUTES ?= 10
# On which versions of Kubernetes "make test-versions" tries the driver.
VERSIONS ?= 1.36.3 1.35.4
# The same for versions that have no claims.
OLD_VERSIONS ?= 1.33.13 1.30.14
# What "make bench" measures: prepare, attach, pairs or controller.
BENCH ?= prepare
# With 1, "make test-privileges" also takes each right away.
PRIVILEGES_MUTATE ?=
# Further arguments of "go test" for unit and end-to-end tests, such as
# TESTARGS="-run TestOneGPU".
TESTARGS ?=

# The version is set by build/image, so git need not be asked for it again,
# which fails in a clone that another user owns.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# The C compiler's remarks about old calls in go-nvml are not for us.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

step := build/step.sh
lint := go tool -modfile=tools/go.mod golangci-lint
image_tar := $(CURDIR)/bin/eks-hybrid-dra-image.tar
workload_tar := $(CURDIR)/bin/workload-image.tar
cluster_bin := $(CURDIR)/bin/cluster
helm_bin := $(CURDIR)/bin/helm
promtool_bin := $(CURDIR)/bin/promtool

# What tests and demo on a cluster are told about what was built for them.
on_cluster := E2E_IMAGE_TAR=$(image_tar) E2E_WORKLOAD_TAR=$(workload_tar) CLUSTER_BIN=$(cluster_bin) HELM_BIN=$(helm_bin)

# What all tests on clusters need. "make test" builds it once, before tests that
# run side by side.
parts := $(if $(PARTS_ARE_BUILT),,cluster image workload helm)

# The files with tests that run straight in the guest; what else is in their
# packages needs no guest.
in_guest := grep -rlx --include='*_test.go' '//go:build guest' .

##@ Use it

.PHONY: help
help: ## Print this list.
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: cluster image workload ## Bring up a cluster with a simulated DGX H200 and run a GPU job in it. DEMO_KEEP=1 leaves it up.
	@$(on_cluster) go run ./test/demo

.PHONY: image
image: deps-build ## Build the container image into bin/, without Docker. PUSH=registry/name:tag pushes it.
	@$(step) "image $(IMAGE)" go run ./build/image --tag $(IMAGE) --output $(image_tar) $(if $(PUSH),--push $(PUSH))

##@ Test it

.PHONY: test
test: deps-build deps-cluster lint unit fuzz-shortly test-monitoring test-cluster faults $(parts) guest-parts ## Run all tests.
	@build/beside.sh "$(MAKE) PARTS_ARE_BUILT=1 test-guest test-controller test-chart test-privileges" "$(MAKE) PARTS_ARE_BUILT=1 e2e"

.PHONY: lint
lint: ## Check style, common mistakes and the floors of the design.
	@$(step) "lint" $(lint) run ./...
	@$(step) "lint test/cluster" $(SHELL) -c 'modfile=$$PWD/tools/go.mod && cd test/cluster && go tool -modfile=$$modfile golangci-lint run --config ../../.golangci.yml ./...'

.PHONY: unit
unit: deps-build ## Run the unit tests with the race detector.
	@$(step) "unit tests" go test -race -timeout 15m $(TESTARGS) $$(go list ./... | grep -Ev '/test/(chart(/.*)?|controller|e2e|faults|guest|monitoring|privileges)$$')
	@$(step) "unit tests of test/cluster" go test -C test/cluster -race -short -timeout 15m $(TESTARGS) ./...

.PHONY: test-monitoring
test-monitoring: promtool helm ## Test alerts and the dashboard: that they fire when they should, and ask for metrics that there are.
	@$(step) "tests of alerts and the dashboard" env PROMTOOL_BIN=$(promtool_bin) HELM_BIN=$(helm_bin) go test -count=1 -timeout 10m $(TESTARGS) ./test/monitoring/...

.PHONY: test-cluster
test-cluster: cluster ## Test the test cluster itself: that it comes up, and leaves nothing behind.
	@$(step) "tests of the test cluster" go test -C test/cluster -count=1 -timeout 20m -v $(TESTARGS) .

.PHONY: faults
faults: $(parts) ## Test what the plugin makes of crashes, full disks and lost answers, beside a real API server.
	@$(step) "fault tests" env $(on_cluster) go test -count=1 -timeout 20m -v $(TESTARGS) ./test/faults/...

.PHONY: e2e
e2e: $(parts) ## Run the end-to-end tests on a real one-node cluster.
	@$(step) "end-to-end tests" env $(on_cluster) go test -count=1 -timeout 60m -v $(TESTARGS) ./test/e2e/...

.PHONY: test-controller
test-controller: $(parts) ## Test the controller: claims, gangs, crashes, and a minute of a race with kube-scheduler.
	@$(step) "tests of the controller" env $(on_cluster) go test -race -count=1 -timeout 40m -v $(TESTARGS) ./test/controller/...

.PHONY: test-chart
test-chart: $(parts) ## Test the chart: what it renders, and its life on a cluster from install to uninstall.
	@$(step) "tests of the chart" env $(on_cluster) go test -count=1 -timeout 20m -v $(TESTARGS) ./test/chart/...

.PHONY: test-privileges
test-privileges: $(parts) ## Test that each program may do what it needs and nothing else. PRIVILEGES_MUTATE=1 also takes each right away, in half an hour.
	@$(step) "tests of privileges" env $(on_cluster) PRIVILEGES_MUTATE=$(PRIVILEGES_MUTATE) go test -count=1 -timeout $(if $(PRIVILEGES_MUTATE),90m,15m) -v $(TESTARGS) ./test/privileges/...

.PHONY: test-guest
test-guest: $(parts) guest-parts ## Run the tests that need real SR-IOV, in a QEMU guest. A Debian machine has all it takes.
	@$(step) "tests straight in the guest" go run ./test/vm test -- -v \
		-run "^($$($(in_guest) | xargs sed -nE 's/^func (Test[A-Za-z0-9_]*)\(.*/\1/p' | paste -sd '|'))\$$" $(TESTARGS) \
		$$($(in_guest) | xargs -n 1 dirname | sort -u)
	@$(step) "the guest as a node" env $(on_cluster) go test -tags vm -count=1 -timeout 10m -v $(TESTARGS) ./test/vm/node
	@$(step) "tests of a node in the guest" env $(on_cluster) go test -count=1 -timeout 30m -v $(TESTARGS) ./test/guest/...

.PHONY: guest-parts
guest-parts:
	@$(step) "guest: its parts" go run ./test/vm build

.PHONY: soak
soak: cluster image workload ## Cut the node off for SOAK_MINUTES, kill the plugin for as long, and let both allocators race for RACE_MINUTES.
	@$(step) "soak" env $(on_cluster) SOAK_MINUTES=$(SOAK_MINUTES) go test -count=1 -timeout $$((3 * $(SOAK_MINUTES) + 20))m -v \
		-run 'TestANodeThatIsCutOff|TestNoPodFailsAndNothingIsLeft' $(TESTARGS) ./test/e2e/...
	@$(step) "soak of the controller" env $(on_cluster) RACE_MINUTES=$(RACE_MINUTES) go test -race -count=1 -timeout $$(($(RACE_MINUTES) + 20))m -v \
		-run 'TestNoDeviceIsGivenTwiceByTwoAllocators' $(TESTARGS) ./test/controller/...

.PHONY: test-versions
test-versions: cluster image workload helm ## Run examples, pull a cable, and allocate with the controller on other VERSIONS of Kubernetes, and extended resources on OLD_VERSIONS, too; building each takes long at first.
	@for version in $(VERSIONS); do \
		$(step) "test cluster: Kubernetes $$version" $(cluster_bin) build --kubernetes-version v$$version; \
		$(step) "a GPU and a VF on Kubernetes $$version" env $(on_cluster) E2E_CLUSTER=versions E2E_KEEP= E2E_KUBERNETES_VERSION=v$$version \
			go test -count=1 -timeout 15m -v -run 'TestEachExampleDoesWhatItSays/^one-gpu|TestAVFWhosePortHasNoLink|TestGPUsAsExtendedResources|TestVFsAsExtendedResources|TestTheNodeRunsTheVersion' $(TESTARGS) ./test/e2e/...; \
		$(step) "the controller on Kubernetes $$version" env $(on_cluster) E2E_CLUSTER=versions E2E_KEEP= E2E_KUBERNETES_VERSION=v$$version \
			go test -race -count=1 -timeout 15m -v -run 'TestAClaimIsAllocatedAtOnce|TestAGangOf16|TestKubeSchedulerTakes|TestTheControllerWrites|TestExamplesOf|TestAnAPIServerThatKeepsNo' $(TESTARGS) ./test/controller/...; \
	done
	@for version in $(OLD_VERSIONS); do \
		$(step) "test cluster: Kubernetes $$version" $(cluster_bin) build --kubernetes-version v$$version; \
		$(step) "extended resources on Kubernetes $$version" env $(on_cluster) E2E_CLUSTER=versions E2E_KEEP= E2E_KUBERNETES_VERSION=v$$version \
			go test -count=1 -timeout 15m -v -run '^TestExtendedResources$$' $(TESTARGS) ./test/chart; \
	done

.PHONY: fuzz
fuzz: ## Run each fuzz test for FUZZTIME.
	@grep -rlE '^func Fuzz' --include='*_test.go' . | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
			$(step) "fuzz $$target" go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x "$$(dirname "$$file")"; \
		done; \
	done

.PHONY: fuzz-shortly
fuzz-shortly:
	@$(MAKE) fuzz FUZZTIME=20000x

.PHONY: test-gpu
test-gpu: ## Run the tests that need a real GPU; they say so where there is none.
	@$(step) "tests on a real GPU" go test -tags gpu -count=1 -timeout 15m -v $(TESTARGS) ./test/gpu/...

.PHONY: bench
bench: cluster image workload ## Measure, and rewrite docs/performance.md; BENCH=prepare, attach, pairs or controller says what. BENCH_QUICK=1 is short and writes nothing.
	@$(on_cluster) go run ./test/bench $(BENCH)

##@ Parts

.PHONY: cluster
cluster: deps-build deps-cluster ## Build the parts of the test cluster; what is in the cache is reused.
	@$(step) "test cluster: its command" go build -C test/cluster -o $(cluster_bin) .
	@$(step) "test cluster: its parts" $(cluster_bin) build

.PHONY: helm
helm: ## Build helm.
	@$(step) "helm" go build -C tools/helm -o $(helm_bin) helm.sh/helm/v4/cmd/helm

.PHONY: manifests
manifests: helm ## Render the plain manifests in deployments/manifests from the chart.
	@$(step) "plain manifests" go run ./build/manifests --helm $(helm_bin)

.PHONY: promtool
promtool: ## Build promtool, which checks alerts. Its service discoveries for clouds are left out.
	@$(step) "promtool" go build -C tools/promtool -tags remove_all_sd -o $(promtool_bin) github.com/prometheus/prometheus/cmd/promtool

.PHONY: workload
workload: ## Build the image that stands in for users' images in tests.
	@$(step) "workload image" go run ./test/workload/build -o $(workload_tar)

.PHONY: deps-build
deps-build:
	@build/deps.sh build

.PHONY: deps-cluster
deps-cluster:
	@build/deps.sh cluster

##@ Clean up

.PHONY: fmt
fmt: ## Format the source.
	@$(lint) fmt ./...
	@modfile=$$PWD/tools/go.mod && cd test/cluster && go tool -modfile=$$modfile golangci-lint fmt --config ../../.golangci.yml ./...

.PHONY: clean
clean: ## Remove what was built here. The cache that all clones share stays.
	@rm -rf bin coverage.out
	@echo "The parts of the test cluster stay in $${EKS_HYBRID_DRA_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/eks-hybrid-dra}."

# make demo   the main job on the five-host example; installs nothing
# make test   installs from Debian what the tests need, then runs all of them
# make boot   hosts of the examples as machines on this one, as root; make boot-all: all that may happen to them
# make build  the program, into ./k3splan
.PHONY: build demo test racks others boot boot-all packages lint fuzz kills bench bench-noop bench-eval

build:
	go build -o k3splan ./cmd/k3splan

demo:
	@.ci/demo

# "go test" alone would not list the checks that could not run. Property tests draw the same values every time:
# make fuzz looks for rare cases, a change should not meet them by chance. More run at a time than there are cores,
# as some only wait, and "go vet" has run.
AT_A_TIME := $(shell echo $$(($$(nproc) + 1)))
GO_TEST := RAPID_SEED=1 go tool gotestsum --format standard-quiet -- -vet=off -timeout 40m
# Racks wait for their machines most of the time: they begin at once, and all together.
RACKS := InABox|BoxOfOne
test: packages lint
	@$(MAKE) --no-print-directory -j2 racks others

racks:
	$(GO_TEST) -parallel 8 -run '$(RACKS)' ./cmd/k3splan

others:
	$(GO_TEST) -p $(AT_A_TIME) -parallel $(AT_A_TIME) -skip '$(RACKS)' ./...

packages:
	@.ci/packages

lint:
	@test -z "$$(gofmt -l .)" || { echo "not formatted:"; gofmt -l .; exit 1; }
	go vet ./...

# What the lab lacks is named as SKIP: test/boot/README.md. boot-all also has a rack with a real etcd.
boot boot-all: packages
	$(if $(filter boot-all,$@),@.ci/packages kernel)
	K3SPLAN_BOOT=$(if $(filter boot-all,$@),all,part) go test -count=1 -v -timeout 90m ./test/boot/...
	$(if $(filter boot-all,$@),K3SPLAN_BOOT=all go test -count=1 -v -timeout 30m -run TestLifeWithRealEtcd ./cmd/k3splan)

# Each fuzz test for a while: make fuzz FUZZTIME=5m. Go would spend a minute on shortening each interesting input
# and try no other in that time. Property tests draw new values, and more of them than in make test.
FUZZTIME ?= 20s
RAPID_CHECKS ?= 500
fuzz:
	RAPID_CHECKS=$(RAPID_CHECKS) go test -count=1 -timeout 40m $$(grep -rl 'pgregory.net/rapid"' --include='*_test.go' internal | xargs -n1 dirname | sort -u | sed 's|^|./|')
	RAPID_CHECKS=10000 go test -count=1 ./internal/schedule
	@set -e; for package in $$(grep -rl '^func Fuzz' --include='*_test.go' internal | xargs -n1 dirname | sort -u); do \
		for name in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$package/*_test.go | cut -d' ' -f2); do \
			go test ./$$package -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x; done; done

# Kills every command that writes at random moments, on a full disk too (as root), and looks what is left. Then
# measures the memory that hostile files take.
KILLS ?= 300
kills:
	K3SPLAN_KILLS=$(KILLS) go test -count=1 -timeout 2h -v -run 'TestKilledAtAnyMoment|TestEveryCommandThatWritesIsKilled|TestMemory' ./cmd/k3splan

# A deployment that changes nothing, over 50 hosts, against the program of another commit.
BENCH_BASE ?= c982a16
bench-noop:
	@base=$$(mktemp -d) && trap 'rm -rf "$$base"' EXIT && git archive $(BENCH_BASE) | tar -xC "$$base" && (cd "$$base" && go build -o k3splan ./cmd/k3splan) && \
		K3SPLAN_BENCH_BASE="$$base/k3splan" go test -count=1 -timeout 1h -v -run TestBenchNoOp ./cmd/k3splan

bench:
	go test -run '^$$' -bench . ./internal/...

# Evaluation against the real Colmena on PATH, as ratios of programs that run one after the other: NAME VALUE TARGET
# ok|short, SKIP where the harness or Colmena is missing.
EVALUATED ?= 20
bench-eval:
	@K3SPLAN_BENCH_EVAL=$(EVALUATED) go test -count=1 -timeout 2h -v -run TestBenchEval ./internal/evaluate | grep -E '^(#|SKIP|[a-z0-9A-Z-]+ [0-9.]+ [0-9.]+ (ok|short)$$|---|FAIL|    )'

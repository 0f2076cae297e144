# make demo and make test are all that a fresh clone needs; both install the
# Debian packages they miss (scripts/need), and leave nothing else behind.

PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
SBINDIR ?= $(PREFIX)/sbin
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Where container runtimes look for CNI plug-ins, and Docker for plug-ins: they know no PREFIX.
CNIDIR    ?= /opt/cni/bin
DOCKERDIR ?= /etc/docker/plugins
DESTDIR ?=

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)

GO        ?= go
GOBUILD   := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'
FUZZTIME  ?= 30s
BENCHTIME ?= 1s
# More flags for bin/perf, such as BENCH='--quick' or BENCH='--scenario tcp-1'.
BENCH     ?=

TEST_NEEDS := iproute2=ip iputils-ping=ping iperf3=iperf3 tcpdump=tcpdump tshark=tshark \
	ethtool=ethtool jq=jq openvswitch-switch=ovs-vswitchd \
	gcc=gcc libc6-dev=/usr/include/stdlib.h vde2=vde_switch sockperf=sockperf tmux=tmux procps=ps \
	netbase=/etc/services docker.io=dockerd containerd=containerd runc=runc tini=/usr/bin/tini-static \
	busybox-static=/bin/busybox nftables=nft iptables=iptables bind9-dnsutils=dig podman=podman crun=crun \
	containernetworking-plugins=/usr/lib/cni/host-local qemu-system-x86=qemu-system-x86_64
DEMO_NEEDS := iproute2=ip iputils-ping=ping iperf3=iperf3 tcpdump=tcpdump ethtool=ethtool
BENCH_NEEDS := iproute2=ip iputils-ping=ping iperf3=iperf3 sockperf=sockperf ethtool=ethtool \
	openvswitch-switch=ovs-vswitchd vde2=vde_switch

.PHONY: help build demo test bench bench-go fuzz lint install uninstall clean

help:
	@echo 'make build      build vswitchd, vswitchctl and vswitch-cni into bin/'
	@echo 'make demo       see it work: containers on two hosts, switches, a tunnel (root)'
	@echo 'make test       run every test (root, some minutes)'
	@echo 'make fuzz       run every fuzz target, FUZZTIME=30s each'
	@echo 'make bench      compare with peers: docs/benchmarks.md (root, some 45 minutes; BENCH=--quick for 4)'
	@echo 'make bench-go   run the benchmarks of single functions'
	@echo 'make lint       gofmt, go vet, and staticcheck where installed'
	@echo 'make install    install under PREFIX=/usr/local; DESTDIR= works'
	@echo 'make uninstall  remove what install installed'
	@echo 'make clean      remove what build built'

build:
	$(GOBUILD) -o bin/ ./cmd/vswitchd ./cmd/vswitchctl ./cmd/vswitch-cni

demo:
	@scripts/need $(DEMO_NEEDS)
	@$(MAKE) --no-print-directory build
	@scripts/demo bin

# The race detector wants cgo, and only it does. The frame path runs a second time
# as it is shipped: steady memory over ten million frames shows only there.
test:
	@scripts/need $(TEST_NEEDS)
	@$(MAKE) --no-print-directory lint build
	CGO_ENABLED=1 $(GO) test -race -count=1 -timeout 14m ./...
	CGO_ENABLED=0 $(GO) test -count=1 -timeout 10m ./switch ./tunnel ./ports ./frame ./fdb ./capture

# Compared in one interleaved run: what is written is the whole of it, so parts of
# a run (BENCH=--scenario …) are told on the terminal and written nowhere.
bench:
	@scripts/need $(BENCH_NEEDS)
	@$(MAKE) --no-print-directory build
	$(GOBUILD) -o bin/ ./cmd/perf
	bin/perf $(if $(strip $(BENCH)),$(BENCH),--json docs/benchmarks.json --markdown docs/benchmarks.md --svg docs/benchmarks.svg)

bench-go:
	CGO_ENABLED=0 $(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) ./...

fuzz:
	@scripts/fuzz $(FUZZTIME)

lint:
	@files=$$(git ls-files -z --cached --others --exclude-standard '*.go' | xargs -0 -r ls 2>/dev/null | xargs -r gofmt -l); \
	if [ -n "$$files" ]; then echo "gofmt -w is due:"; echo "$$files"; exit 1; fi
	$(GO) vet ./...
	@if command -v staticcheck >/dev/null; then echo staticcheck ./...; staticcheck ./...; fi

install: build
	install -d $(DESTDIR)$(SBINDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(UNITDIR) \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -m 755 bin/vswitchd $(DESTDIR)$(SBINDIR)/vswitchd
	install -m 755 bin/vswitchctl $(DESTDIR)$(BINDIR)/vswitchctl
	install -d $(DESTDIR)$(CNIDIR) $(DESTDIR)$(DOCKERDIR)
	install -m 755 bin/vswitch-cni $(DESTDIR)$(CNIDIR)/vswitch-cni
	install -m 644 packaging/vswitch.spec $(DESTDIR)$(DOCKERDIR)/vswitch.spec
	sed 's|@SBINDIR@|$(SBINDIR)|' packaging/vswitchd.service >$(DESTDIR)$(UNITDIR)/vswitchd.service
	chmod 644 $(DESTDIR)$(UNITDIR)/vswitchd.service
	bin/vswitchctl completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/vswitchctl
	bin/vswitchctl completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_vswitchctl
	bin/vswitchctl completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vswitchctl.fish

uninstall:
	rm -f $(DESTDIR)$(SBINDIR)/vswitchd $(DESTDIR)$(BINDIR)/vswitchctl $(DESTDIR)$(UNITDIR)/vswitchd.service \
		$(DESTDIR)$(CNIDIR)/vswitch-cni $(DESTDIR)$(DOCKERDIR)/vswitch.spec \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/vswitchctl \
		$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_vswitchctl \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vswitchctl.fish

clean:
	rm -rf bin

package ctl_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// A guest is a virtual machine that QEMU runs by software emulation: Debian's kernel for
// clouds, the modules of its network card, and busybox. It boots in some seconds, and its
// shell is on the other side of a serial line.

// guestModules are virtio_net and what it stands on, in the order in which they load.
var guestModules = []string{
	"drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_legacy_dev",
	"drivers/virtio/virtio_pci_modern_dev", "drivers/virtio/virtio_pci", "net/core/failover",
	"drivers/net/net_failover", "drivers/net/virtio_net",
}

// guestInit reads lines from the console and runs them.
const guestInit = `#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for m in /m/*.ko; do insmod $m; done
stty -echo -onlcr
ip link set lo up
echo "the guest is up"
while read -r line; do eval "$line"; done
poweroff -f
`

// guestFiles are a kernel and an initramfs on disk.
type guestFiles struct{ kernel, initramfs string }

// buildGuest makes a guest's files in the lab's directory.
func buildGuest(l *lab.Lab) (guestFiles, error) {
	files := guestFiles{filepath.Join(l.Dir(), "vmlinuz"), filepath.Join(l.Dir(), "initramfs")}
	deb, err := kernelPackage()
	if err != nil {
		return files, err
	}
	tree := filepath.Join(l.Dir(), "kernel")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return files, err
	}
	patterns := []string{"./boot/vmlinuz-*"}
	for _, m := range guestModules {
		patterns = append(patterns, "./lib/modules/*/kernel/"+m+".ko")
	}
	// What a package holds comes as a tar archive; nothing of it is installed.
	unpack := exec.Command("bash", append([]string{"-c",
		`set -o pipefail; deb=$1 tree=$2; shift 2; dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tree" --wildcards "$@"`,
		"bash", deb, tree}, patterns...)...)
	if out, err := unpack.CombinedOutput(); err != nil {
		return files, fmt.Errorf("unpack %s: %w\n%s", deb, err, out)
	}
	vmlinuz, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil || len(vmlinuz) != 1 {
		return files, fmt.Errorf("%s has kernels %v", deb, vmlinuz)
	}
	if err := os.Rename(vmlinuz[0], files.kernel); err != nil {
		return files, err
	}
	archive, err := guestArchive(tree)
	if err != nil {
		return files, err
	}
	return files, os.WriteFile(files.initramfs, archive, 0o644)
}

// kernelPackage returns Debian's kernel package for clouds, some 27 MB: the one in apt's
// own cache of packages, or it is fetched there. Installing it would make an initramfs
// of this machine's.
func kernelPackage() (string, error) {
	const cache, kernel = "/var/cache/apt/archives", "linux-image-cloud-amd64"
	cached := func() string {
		list, _ := filepath.Glob(cache + "/linux-image-[0-9]*-cloud-amd64_*_amd64.deb")
		for i := len(list) - 1; i >= 0; i-- {
			if exec.Command("dpkg-deb", "--info", list[i]).Run() == nil {
				return list[i]
			}
		}
		return ""
	}
	if deb := cached(); deb != "" {
		return deb, nil
	}
	fetch := func() error {
		out, err := exec.Command("apt-cache", "show", "--no-all-versions", kernel).CombinedOutput()
		if err != nil {
			return fmt.Errorf("apt-cache show %s: %w: %s", kernel, err, out)
		}
		// It depends on the package of today's version, and on nothing else.
		_, rest, _ := strings.Cut(string(out), "\nDepends: ")
		name, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		get := exec.Command("apt-get", "download", "-o", "Acquire::Retries=3", name)
		get.Dir = cache
		if out, err := get.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get download %s: %w: %s", name, err, out)
		}
		return nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	if err := fetch(); err != nil {
		// The lists are missing or old.
		if out, err := exec.Command("apt-get", "-o", "DPkg::Lock::Timeout=120", "update").CombinedOutput(); err != nil {
			return "", fmt.Errorf("apt-get update: %w: %s", err, out)
		}
		if err := fetch(); err != nil {
			return "", err
		}
	}
	if deb := cached(); deb != "" {
		return deb, nil
	}
	return "", errors.New("apt-get fetched no kernel")
}

// guestArchive makes the initramfs.
func guestArchive(tree string) ([]byte, error) {
	var a cpio
	for _, dir := range []string{"bin", "dev", "m", "proc", "sys", "tmp"} {
		a.add(dir, 0o40755, nil)
	}
	a.add("init", 0o100755, []byte(guestInit))
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, err
	}
	a.add("bin/busybox", 0o100755, busybox)
	for i, m := range guestModules {
		found, _ := filepath.Glob(filepath.Join(tree, "lib/modules/*/kernel", m+".ko"))
		if len(found) != 1 {
			return nil, fmt.Errorf("the kernel's package has %d modules %s", len(found), m)
		}
		module, err := os.ReadFile(found[0])
		if err != nil {
			return nil, err
		}
		a.add(fmt.Sprintf("m/%d-%s", i, filepath.Base(found[0])), 0o100644, module) // in order
	}
	a.add("TRAILER!!!", 0, nil)
	return a.Bytes(), nil
}

// cpio is an archive of the "newc" format, initramfs-buffer-format in the kernel's
// documentation: for each file a header of 110 ASCII characters, name and data, both
// padded to four bytes.
type cpio struct {
	bytes.Buffer
	files int
}

func (a *cpio) add(name string, mode int, data []byte) {
	a.files++
	fmt.Fprintf(a, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.files, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	a.pad()
	a.Write(data)
	a.pad()
}

func (a *cpio) pad() { a.Write(make([]byte, -a.Len()&3)) }

// guest is a machine that runs. Thread-safety: one goroutine's.
type guest struct {
	t       *testing.T
	p       *lab.Proc
	console *os.File
	asked   int // commands so far
}

// guestBoot bounds the way to the guest's first line, on a machine that does other
// things: alone it takes three seconds.
const guestBoot = 60 * time.Second

// boot starts a machine on the host whose network card is the TAP.
func (files guestFiles) boot(t *testing.T, h *lab.Host, tap, mac string) *guest {
	t.Helper()
	stdin, console, err := os.Pipe() // QEMU's own: nobody copies, and nobody waits for the copier
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	t.Cleanup(func() { console.Close() })
	p := h.StartWith(stdin, "qemu-system-x86_64",
		"-accel", "tcg", "-m", "192", "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", files.kernel, "-initrd", files.initramfs, "-append", "console=ttyS0 quiet loglevel=1 panic=-1",
		"-netdev", "tap,id=n0,ifname="+tap+",script=no,downscript=no",
		"-device", "virtio-net-pci,netdev=n0,romfile=,mac="+mac)
	g := &guest{t: t, p: p, console: console}
	g.waitFor("the guest is up", guestBoot)
	return g
}

// waitFor waits until the console has shown a text, and returns all it has shown.
func (g *guest) waitFor(text string, limit time.Duration) (out string) {
	g.t.Helper()
	lab.Eventually(g.t, limit, func() error {
		out = strings.ReplaceAll(g.p.Out.String(), "\r", "")
		if strings.Contains(out, text) {
			return nil
		}
		select {
		case <-g.p.Done():
			g.t.Fatalf("the guest ended:\n%s", out)
		default:
		}
		return fmt.Errorf("the guest has not said %q, but:\n%s", text, out)
	})
	return out
}

// ask gives the guest's shell a line, and returns what waits for it: for its output,
// and an error where its exit status is not 0.
func (g *guest) ask(line string) (answer func(limit time.Duration) (string, error)) {
	g.t.Helper()
	g.asked++
	begin, end := fmt.Sprintf("\n[begin %d]\n", g.asked), fmt.Sprintf("\n[end %d ", g.asked)
	if _, err := fmt.Fprintf(g.console, "echo; echo '%s'; { %s; } </dev/null 2>&1; echo; echo '%s'$? ]\n",
		strings.TrimSpace(begin), line, strings.TrimLeft(end, "\n")); err != nil {
		g.t.Fatal(err)
	}
	return func(limit time.Duration) (string, error) {
		g.t.Helper()
		g.waitFor(end, limit)
		_, out, _ := strings.Cut(g.waitFor(" ]\n", limit), begin)
		out, rest, _ := strings.Cut(out, end)
		status, _, _ := strings.Cut(rest, " ")
		if code, err := strconv.Atoi(status); err != nil || code != 0 {
			return out, fmt.Errorf("%s: exit status %s\n%s", line, status, out)
		}
		return strings.TrimSpace(out), nil
	}
}

// must is ask for what ends well.
func (g *guest) must(line string) string {
	g.t.Helper()
	out, err := g.ask(line)(time.Minute)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

// off takes the machine's power away.
func (g *guest) off() {
	g.console.Close()
	g.p.Kill()
}

// needQEMU skips the test where there can be no such guest.
func needQEMU(t *testing.T) {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("Debian has a kernel for clouds that boots at once for amd64")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

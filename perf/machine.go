package perf

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is what a figure is worth nothing without.
type Machine struct {
	CPU         string `json:"cpu"` // model name
	CPUs        int    `json:"cpus"`
	MemoryBytes int64  `json:"memory_bytes"`
	Kernel      string `json:"kernel"`
	System      string `json:"system"` // distribution
	Virtual     bool   `json:"virtual"`
}

// ThisMachine describes the machine this runs on; what it cannot find out is
// left empty.
func ThisMachine() Machine {
	info, _ := os.ReadFile("/proc/cpuinfo")
	memory, _ := os.ReadFile("/proc/meminfo")
	release, _ := os.ReadFile("/etc/os-release")
	m := Machine{
		CPU:    field(info, "model name", ":"),
		CPUs:   runtime.NumCPU(),
		System: strings.Trim(field(release, "PRETTY_NAME", "="), `"`),
		// A hypervisor says so by a bit of CPUID.
		Virtual: strings.Contains(" "+field(info, "flags", ":")+" ", " hypervisor "),
	}
	kilobytes, _, _ := strings.Cut(field(memory, "MemTotal", ":"), " ")
	if n, err := strconv.ParseInt(kilobytes, 10, 64); err == nil {
		m.MemoryBytes = n << 10
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:])
	}
	return m
}

// field returns the value of the first line "key<separator>value".
func field(text []byte, key, separator string) string {
	for line := range bytes.Lines(text) {
		k, v, ok := strings.Cut(string(line), separator)
		if ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// String is one line for a report.
func (m Machine) String() string {
	kind := ""
	if m.Virtual {
		kind = " (virtual machine)"
	}
	return fmt.Sprintf("%d × %s%s, %.0f GiB, %s, %s", m.CPUs, m.CPU, kind, float64(m.MemoryBytes)/(1<<30), m.Kernel, m.System)
}

// SourceCommit returns the git commit of the tree at the working directory, with
// "-dirty" behind it when tracked files were changed, "unknown" without one.
func SourceCommit() string {
	out, err := exec.Command("git", "rev-parse", "--short=12", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	commit := strings.TrimSpace(string(out))
	status, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output()
	if err != nil || len(bytes.TrimSpace(status)) > 0 {
		commit += "-dirty"
	}
	return commit
}

package subject

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// process is one that belongs to a switch.
type process struct {
	name string
	pid  int
	side bool // has no frames to forward: its memory is told apart
}

// CPU returns the processor time that the switch's own processes on all hosts have
// used so far, threads that have ended too; 0 where it has none.
func (b *Bed) CPU() time.Duration {
	var sum time.Duration
	for _, p := range b.processes() {
		sum += p.cpu()
	}
	return sum
}

// Memory returns the bytes of memory (proportional set size) of the processes that
// forward, on all hosts; 0 where there are none.
func (b *Bed) Memory() int64 {
	var sum int64
	for _, p := range b.processes() {
		if !p.side {
			sum += p.memory()
		}
	}
	return sum
}

// MemoryOf is Memory of each process by name, of those too that do not forward
// (ovsdb-server). The same on several hosts are added up.
func (b *Bed) MemoryOf() map[string]int64 {
	all := make(map[string]int64)
	for _, p := range b.processes() {
		all[p.name] += p.memory()
	}
	return all
}

func (b *Bed) processes() (all []process) {
	for _, n := range b.nodes {
		all = append(all, n.processes()...)
	}
	return all
}

// cpu reads the clock of the whole process: nanoseconds, where /proc has ticks of
// ten milliseconds. A process that is gone has none.
func (p process) cpu() time.Duration {
	// clock_getcpuclockid(3): the kernel's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED).
	const cpuclockSched = 2
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid)<<3|cpuclockSched, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// memory reads the proportional set size: a page that several processes share is
// split among them.
func (p process) memory() int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
	if err != nil {
		return 0
	}
	return pss(data)
}

// pss finds the line "Pss:    1234 kB" (proc_pid_smaps_rollup in proc(5)).
func pss(rollup []byte) int64 {
	for line := range bytes.Lines(rollup) {
		f := bytes.Fields(line)
		if len(f) == 3 && string(f[0]) == "Pss:" {
			kb, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}

func machineCPU() (busy, total time.Duration) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return parseStat(line)
}

// parseStat reads the first line of /proc/stat (proc(5)), in ticks:
//
//	cpu user nice system idle iowait irq softirq steal guest guest_nice
//
// guest is in user, and guest_nice in nice. Stolen time is nobody's here.
func parseStat(line string) (busy, total time.Duration) {
	const tick = time.Second / 100 // USER_HZ, on every architecture of Linux that Go knows
	const idle, iowait, steal, guest = 3, 4, 7, 8
	f := strings.Fields(strings.TrimPrefix(line, "cpu "))
	for i, s := range f[:min(len(f), guest)] {
		ticks, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, 0
		}
		d := time.Duration(ticks) * tick
		total += d
		if i != idle && i != iowait && i != steal {
			busy += d
		}
	}
	return busy, total
}

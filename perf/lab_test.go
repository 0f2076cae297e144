package perf

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vswitch/internal/lab"
	"vswitch/perf/subject"
)

// TestLabSmoke measures this switch and the Linux bridge for one short round each,
// in real namespaces:
//
//	┌─ c1 ───────┐   ┌─ host ────────────────────────┐   ┌─ c2 ───────┐
//	│ eth0 .1    ┼───┼─ veth  the switch at hand veth ┼───┼─ eth0 .2   │
//	└────────────┘   └───────────────────────────────┘   └────────────┘
func TestLabSmoke(t *testing.T) {
	lab.New(t) // skips without root
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin+string(filepath.Separator), "vswitch/cmd/vswitchd", "vswitch/cmd/vswitchctl")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the switch: %v\n%s", err, out)
	}
	scenarios, err := Select(All(), []string{"memory", "tcp-1", "ping-pong", "frames-64", "add-port"})
	if err != nil {
		t.Fatal(err)
	}
	contenders, err := Choose(Contenders(subject.All(bin)), []string{"vswitch", "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	results := new(Results)
	runner := Runner{Scenarios: scenarios, Contenders: contenders, Rounds: 1, Seconds: 1, Log: t.Output(), MachineCPU: MachineCPU}
	if err := runner.Run(t.Context(), results); err != nil {
		t.Fatal(err)
	}
	if err := results.Failed(); err != nil {
		t.Error(err)
	}
	for _, s := range results.Scenarios {
		for _, o := range s.Outcomes {
			if s.Name == "memory" && o.Subject == "bridge" {
				if o.Cannot == "" {
					t.Error("a kernel's bridge has a process?")
				}
				continue
			}
			if stat := o.Stat(s.Metrics[0].Name); stat.N != 1 || stat.Median <= 0 {
				t.Errorf("%s, %s: %+v", s.Name, o.Subject, stat)
			}
		}
	}
	if _, measured := results.Scenario("tcp-1").Outcome("vswitch").Samples[0].Values["cpu-gb"]; !measured {
		t.Error("no CPU time of vswitch was metered")
	}
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
)

// TestFold: of a flood of forged sources the loudest are named, and nothing is lost.
func TestFold(t *testing.T) {
	now := time.Now()
	drops := []api.Drop{{Bridge: "br0", Port: "p", Reason: "same-port", Count: 7, LastSeen: now}}
	for i := range 500 {
		drops = append(drops, api.Drop{
			Port: "vxlan 0.0.0.0:4789", Reason: "tunnel-unknown-source", Source: fmt.Sprintf("10.0.0.%d key 1", i), Count: uint64(1 + i%50), Rate: 0.5, LastSeen: now.Add(time.Duration(i)),
		})
	}
	rows := fold(drops)
	if len(rows) != 1+mostSources+1 {
		t.Fatalf("%d rows", len(rows))
	}
	var want, sum uint64
	for _, d := range drops {
		want += d.Count
	}
	for _, d := range rows {
		sum += d.Count
	}
	if others := rows[len(rows)-1]; sum != want || others.Source != "490 others" || others.Rate != 245 || rows[1].Count != 50 || others.LastSeen.Before(now.Add(450)) {
		t.Errorf("sum %d of %d, first %+v, last %+v", sum, want, rows[1], others)
	}
}

func TestDropsByReason(t *testing.T) {
	c := newCLI(t)
	_, out, _ := c.run("", "drops", "--reason", "ring-full")
	if !strings.Contains(out, "ring-full") || strings.Contains(out, "vlan-denied") {
		t.Errorf("%s", out)
	}
	if _, out, _ := c.run("", "drops", "--reason", "nope"); out != "no frame was dropped\n" {
		t.Errorf("%q", out)
	}
	if code, _, errs := c.run("", "drops", "--watch", "--interval", "1ms"); code != exitUsage || !strings.Contains(errs, "at least 100ms") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

// The last frame stands beneath its reason, and cannot steer the terminal.
func TestDropsShowTheLastFrame(t *testing.T) {
	c := newCLI(t)
	c.svc.D[1].Rate, c.svc.D[1].LastFrame = 12345.6, "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff \x1b]0;owned\x07, ARP"
	_, out, _ := c.run("", "drops")
	if want := "\n    last: 02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff ?]0;owned?, ARP\n    the port's device"; !strings.Contains(out, want) || !strings.Contains(out, "12346/s") {
		t.Errorf("%s", out)
	}
}

// TestWatchDrops: what grows comes first, by rate, in blocks one after the other
// where nobody repaints.
func TestWatchDrops(t *testing.T) {
	c := newCLI(t)
	code, out, errs := c.run("", "drops", "--watch", "--count", "2", "--interval", "100ms")
	if code != exitDone || errs != "" || strings.Count(out, "every 100ms  0 of 2 reasons happening now\n") != 2 || strings.Contains(out, "\x1b") {
		t.Errorf("exit %d, %q:\n%s", code, errs, out)
	}
	ctx, interrupt := context.WithCancel(context.Background())
	interrupt()
	if code, _, errs := c.runCtx(ctx, "", "drops", "--watch"); code != exitDone || errs != "" {
		t.Errorf("interrupted: exit %d, %q", code, errs)
	}
}

func TestGrow(t *testing.T) {
	var w dropsWatch
	look := func(after time.Duration, counts ...uint64) (order []string, grew int) {
		var drops []api.Drop
		for i, n := range counts {
			drops = append(drops, api.Drop{Reason: string(rune('a' + i)), Count: n, LastSeen: now.Add(time.Duration(i))})
		}
		grew = w.grow(now.Add(after), drops)
		for _, d := range drops {
			order = append(order, fmt.Sprintf("%s %.1f", d.Reason, d.Rate))
		}
		return order, grew
	}
	look(0, 10, 20, 30)
	order, grew := look(2*time.Second, 14, 20, 130, 5)
	if want := []string{"c 50.0", "d 2.5", "a 2.0", "b 0.0"}; !slices.Equal(order, want) || grew != 3 {
		t.Errorf("%q, %d", order, grew)
	}
	// A port that was made anew counts from nothing.
	if order, grew := look(4*time.Second, 3, 20, 130, 5); grew != 0 || order[0] != "d 0.0" {
		t.Errorf("%q, %d", order, grew)
	}
}

func TestClip(t *testing.T) {
	for _, tc := range []struct {
		s, want string
		n       int
	}{{"añb", "añb", 3}, {"añbc", "añ…", 3}, {"abc", "…", 1}, {"abc", "…", 0}} {
		if got := clip(tc.s, tc.n); got != tc.want {
			t.Errorf("%q to %d: %q", tc.s, tc.n, got)
		}
	}
}

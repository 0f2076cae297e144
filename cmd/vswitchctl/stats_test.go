package main

import (
	"fmt"
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
			Port: "vxlan 0.0.0.0:4789", Reason: "tunnel-unknown-source", Source: fmt.Sprintf("10.0.0.%d key 1", i), Count: uint64(1 + i%50), LastSeen: now.Add(time.Duration(i)),
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
	if others := rows[len(rows)-1]; sum != want || others.Source != "490 others" || rows[1].Count != 50 || others.LastSeen.Before(now.Add(450)) {
		t.Errorf("sum %d of %d, first %+v, last %+v", sum, want, rows[1], others)
	}
}

package config

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"
)

// TestCapturesAgainstNaive: two mirrors are refused if and only if the names that
// they write, all spelled out, have one in common.
func TestCapturesAgainstNaive(t *testing.T) {
	names := []string{"x", "x.1", "x.2", "x.1.2", "x.01", "x.pcap", "x.1.pcap", "x.2.pcap", "x.1.1.pcap", "x.1.2", "y.pcap", ".1", ".pcap", ".1.pcap", "1", "1.1"}
	written := func(o Options) (all []string) {
		all = []string{o["output_pcap"]}
		ext := path.Ext(all[0])
		for i := 1; o["rotate"] != "" && i < o.Int("files"); i++ {
			all = append(all, fmt.Sprint(strings.TrimSuffix(all[0], ext), ".", i, ext))
		}
		return all
	}
	rng := rand.New(rand.NewPCG(5, 6))
	refusals := 0
	for range 3000 {
		b := Bridge{Name: "br0"}
		users, clash := map[string]int{}, false
		for i := range 2 {
			o := Options{"select_all": "true", "output_pcap": "/d/" + names[rng.IntN(len(names))]}
			if rng.IntN(2) == 0 {
				o["rotate"], o["files"] = "1M", fmt.Sprint(1+rng.IntN(4))
			}
			b.Mirrors = append(b.Mirrors, Mirror{Name: fmt.Sprint("m", i), Options: o})
			for _, file := range written(o) {
				users[file]++
				clash = clash || users[file] > 1
			}
		}
		d := Document{Bridges: []Bridge{b}}
		err := d.Validate()
		if clash != (err != nil) {
			t.Fatalf("%v: clash %v, error %v", b.Mirrors, clash, err)
		}
		if err != nil {
			refusals++
			if !strings.Contains(err.Error(), "mirrors[m") || !strings.Contains(err.Error(), `mirror "m`) {
				t.Fatalf("%v does not name both", err)
			}
		}
	}
	if refusals == 0 || refusals == 3000 {
		t.Errorf("%d refusals", refusals)
	}
}

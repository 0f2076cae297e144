package perf

import (
	"slices"
	"strings"
	"testing"

	"vswitch/perf/subject"
)

// ran are results of one scenario, a value a subject.
func ran(scenario, metric string, of map[string]float64, more ...Outcome) *Results {
	s := ScenarioResult{Name: scenario, Metrics: []Metric{{metric, metric, "", More}}}
	for _, subject := range []string{"vswitch", "ovs", "ovs-tso", "bridge"} {
		if v, ok := of[subject]; ok {
			s.Outcomes = append(s.Outcomes, outcome(subject, values{metric: {v}}))
		}
	}
	s.Outcomes = append(s.Outcomes, more...)
	return &Results{Scenarios: []ScenarioResult{s}}
}

func TestJudge(t *testing.T) {
	faster := peer("t", value{"s", "m", ""}, openvswitch, More, 4)
	quicker := peer("t", value{"s", "m", ""}, openvswitch, Less, 0.5)
	small := itself("t", value{"s", "m", ""}, Less, 40, "MB")
	none := itself("t", value{"s", "m", ""}, Less, 0, "frames")
	for _, test := range []struct {
		name   string
		target target
		r      *Results
		want   Standing
	}{
		{"the best of the peers counts: more", faster, ran("s", "m", map[string]float64{"vswitch": 12, "ovs": 1, "ovs-tso": 2}),
			Standing{"t", "Open vSwitch (ovs-tso)", "≥ 4 ×", "6 ×", Yes, ""}},
		{"the best of the peers counts: less", quicker, ran("s", "m", map[string]float64{"vswitch": 12, "ovs": 20, "ovs-tso": 30}),
			Standing{"t", "Open vSwitch (ovs)", "≤ 0.5 ×", "0.600 ×", No, ""}},
		{"exactly is enough", faster, ran("s", "m", map[string]float64{"vswitch": 8, "ovs": 2}),
			Standing{"t", "Open vSwitch (ovs)", "≥ 4 ×", "4 ×", Yes, ""}},
		{"nearly is not, though it reads alike", faster, ran("s", "m", map[string]float64{"vswitch": 7.9999, "ovs": 2}),
			Standing{"t", "Open vSwitch (ovs)", "≥ 4 ×", "4.00 ×", No, ""}},
		{"a bound of its own", small, ran("s", "m", map[string]float64{"vswitch": 10}),
			Standing{"t", "itself", "≤ 40 MB", "10 MB", Yes, ""}},
		{"a bound of its own, missed", small, ran("s", "m", map[string]float64{"vswitch": 41}),
			Standing{"t", "itself", "≤ 40 MB", "41 MB", No, ""}},
		{"none is none", none, ran("s", "m", map[string]float64{"vswitch": 0}),
			Standing{"t", "itself", "≤ 0 frames", "0 frames", Yes, ""}},
		{"one is not none", none, ran("s", "m", map[string]float64{"vswitch": 1}),
			Standing{"t", "itself", "≤ 0 frames", "1 frames", No, ""}},
		{"the scenario was not run", faster, ran("other", "m", map[string]float64{"vswitch": 8, "ovs": 2}),
			Standing{"t", "Open vSwitch", "≥ 4 ×", "", LeftOut, ""}},
		{"the peer was not run", faster, ran("s", "m", map[string]float64{"vswitch": 8, "bridge": 2}),
			Standing{"t", "Open vSwitch", "≥ 4 ×", "", LeftOut, ""}},
		{"we failed", faster, ran("s", "m", map[string]float64{"ovs": 2}, Outcome{Subject: "vswitch", Failures: []Failure{{1, "x"}}}),
			Standing{"t", "Open vSwitch", "≥ 4 ×", "", Unknown, "vswitch failed"}},
		{"the peer cannot", faster, ran("s", "m", map[string]float64{"vswitch": 2}, Outcome{Subject: "ovs", Cannot: "no gre"}),
			Standing{"t", "Open vSwitch", "≥ 4 ×", "", Unknown, "ovs: no gre"}},
		{"the peer did nothing", faster, ran("s", "m", map[string]float64{"vswitch": 2, "ovs": 0}),
			Standing{"t", "Open vSwitch", "≥ 4 ×", "", Unknown, "ovs's value is 0"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := test.target.judge(test.r); got != test.want {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

// TestJudgeQuotient compares quotients of two scenarios: a peer's is its own.
func TestJudgeQuotient(t *testing.T) {
	many, one := ran("many", "m", map[string]float64{"vswitch": 40, "ovs": 10}), ran("one", "m", map[string]float64{"vswitch": 50, "ovs": 100})
	r := &Results{Scenarios: []ScenarioResult{many.Scenarios[0], one.Scenarios[0]}}
	got := peer("t", value{"many", "m", "one"}, openvswitch, More, 1).judge(r)
	if want := (Standing{"t", "Open vSwitch (ovs)", "≥ 1 ×", "8 ×", Yes, ""}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := itself("t", value{"many", "m", "one"}, More, 0.9, "×").judge(r); got.Met != No || got.Measured != "0.800 ×" {
		t.Errorf("got %+v", got)
	}
}

// TestTargetsExist holds targets and the chart to scenarios, metrics and peers that
// there are.
func TestTargetsExist(t *testing.T) {
	all := All()
	check := func(where, scenario, metric string) {
		t.Helper()
		i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == scenario })
		if i < 0 {
			t.Errorf("%s: there is no scenario %s", where, scenario)
		} else if !slices.ContainsFunc(all[i].Metrics, func(m Metric) bool { return m.Name == metric }) {
			t.Errorf("%s: scenario %s has no metric %s", where, scenario, metric)
		}
	}
	for _, target := range targets {
		check(target.Title, target.Value.Scenario, target.Value.Metric)
		if target.Value.Over != "" {
			check(target.Title, target.Value.Over, target.Value.Metric)
		}
	}
	for _, s := range subject.All("bin") {
		if (s.Name == "ovs" || strings.HasPrefix(s.Name, "ovs-")) && !slices.Contains(openvswitch, s.Name) {
			t.Errorf("%s is no configuration of Open vSwitch's", s.Name)
		}
	}
	for _, panel := range chartPanels {
		check(panel.title, panel.scenario, panel.metric)
	}
}

// TestTargetsRounds sees that what is compared with a peer is measured in each
// round. Memory hardly varies.
func TestTargetsRounds(t *testing.T) {
	for _, s := range All() {
		for _, target := range targets {
			v := target.Value
			if s.Rounds > 0 && (v.Scenario == s.Name || v.Over == s.Name) && s.Name != "steady" && !strings.Contains(target.Title, "memory") {
				t.Errorf("%s: %s has %d rounds at most", target.Title, s.Name, s.Rounds)
			}
		}
	}
}

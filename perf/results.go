package perf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Direction says which of two values is the better one.
type Direction string

const (
	More Direction = "more" // is better
	Less Direction = "less" // is better
	None Direction = ""     // the value informs, and is not compared
)

// Metric is one kind of value that a scenario measures.
type Metric struct {
	Name   string    `json:"name"`  // within its scenario: "rate", "p50"
	Title  string    `json:"title"` // for a column's head: "one way p50"
	Unit   string    `json:"unit"`
	Better Direction `json:"better,omitempty"`
}

// Results is one run of the benchmark, whole: all reports are made from it, and
// can be made again from its JSON. Thread-safety: for one goroutine.
type Results struct {
	Started     time.Time        `json:"started"`
	Seconds     float64          `json:"took_seconds"`
	Command     string           `json:"command"` // that made this run
	Commit      string           `json:"commit"`  // of the source; "-dirty" behind it when files had been changed
	Machine     Machine          `json:"machine"`
	Interrupted bool             `json:"interrupted,omitempty"`
	Subjects    []SubjectInfo    `json:"subjects"`
	Scenarios   []ScenarioResult `json:"scenarios"`
}

// SubjectInfo is a subject as the reports tell of it.
type SubjectInfo struct {
	Name    string `json:"name"`
	Title   string `json:"title"`
	Version string `json:"version"`
	Notes   string `json:"notes,omitempty"` // how it was set up
}

// ScenarioResult is what came of a scenario.
type ScenarioResult struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	Metrics  []Metric  `json:"metrics"` // the first one is what the scenario is for
	Outcomes []Outcome `json:"outcomes"`
}

// Outcome is what came of one subject in one scenario: samples, failures, or both;
// or the reason why it cannot do it.
type Outcome struct {
	Subject  string    `json:"subject"`
	Cannot   string    `json:"cannot,omitempty"`
	Samples  []Sample  `json:"samples,omitempty"`
	Failures []Failure `json:"failures,omitempty"`
}

// Failure is a round that gave no sample.
type Failure struct {
	Round int    `json:"round"` // from 1
	Error string `json:"error"`
}

// Sample is one round's values of one subject in one scenario.
type Sample struct {
	Round  int                `json:"round"` // from 1
	Values map[string]float64 `json:"values"`
	// What the switch moved while CPU time was metered, which is told for each of
	// these. Zero where a scenario moved nothing worth dividing by.
	Frames uint64 `json:"frames,omitempty"`
	Bytes  uint64 `json:"bytes,omitempty"`
}

// Scenario returns a scenario's results, nil where it was not run.
func (r *Results) Scenario(name string) *ScenarioResult {
	i := slices.IndexFunc(r.Scenarios, func(s ScenarioResult) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &r.Scenarios[i]
}

// Outcome returns what came of a subject, nil where it was not asked.
func (s *ScenarioResult) Outcome(subject string) *Outcome {
	i := slices.IndexFunc(s.Outcomes, func(o Outcome) bool { return o.Subject == subject })
	if i < 0 {
		return nil
	}
	return &s.Outcomes[i]
}

// Metric returns a metric of the scenario.
func (s *ScenarioResult) Metric(name string) (Metric, bool) {
	i := slices.IndexFunc(s.Metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		return Metric{}, false
	}
	return s.Metrics[i], true
}

// Stat sums a metric up over the rounds.
func (o *Outcome) Stat(metric string) Stat {
	var values []float64
	for _, s := range o.Samples {
		if v, ok := s.Values[metric]; ok {
			values = append(values, v)
		}
	}
	return summarize(values)
}

// stat is Stat of a scenario and subject that need not be there.
func (r *Results) stat(scenario, subject, metric string) Stat {
	if s := r.Scenario(scenario); s != nil {
		if o := s.Outcome(subject); o != nil {
			return o.Stat(metric)
		}
	}
	return Stat{}
}

// Failed returns the failures of the run, each with where it happened.
func (r *Results) Failed() error {
	var all []error
	for _, s := range r.Scenarios {
		for _, o := range s.Outcomes {
			for _, f := range o.Failures {
				all = append(all, fmt.Errorf("%s, %s, round %d: %s", s.Name, o.Subject, f.Round, f.Error))
			}
		}
	}
	return errors.Join(all...)
}

// WriteJSON writes everything.
func (r *Results) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(rd io.Reader) (*Results, error) {
	r := new(Results)
	d := json.NewDecoder(rd)
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	return r, nil
}

// Command perf measures vswitch and its peers on this machine: see package
// vswitch/perf for how. It needs root, makes network namespaces of its own, and
// leaves nothing behind.
//
// Its exit status is 0 when everything was measured, 1 when something failed or
// the run was interrupted (what was measured is written all the same), 2 for wrong
// usage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"vswitch/perf"
	"vswitch/perf/subject"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends it at once
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// options are the command line.
type options struct {
	quick               bool
	scenarios, subjects string
	rounds, seconds     int
	json, markdown, svg string
	bin, from           string
	list                bool
}

func parse(args []string, stderr io.Writer) (o options, err error) {
	f := flag.NewFlagSet("perf", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.BoolVar(&o.quick, "quick", false, "fewer rounds and seconds, and the main scenarios alone")
	f.StringVar(&o.scenarios, "scenario", "", "only these `scenarios`: names or patterns, \"tcp-*,ping-pong\"")
	f.StringVar(&o.subjects, "subject", "", "only these `subjects`: names or patterns, \"vswitch,ovs*\"")
	f.IntVar(&o.rounds, "rounds", 0, "`rounds` at most (default 7; quick 3)")
	f.IntVar(&o.seconds, "seconds", 0, "`seconds` that a stream lasts; frames a third (default 3; quick 1)")
	f.StringVar(&o.json, "json", "", "write all samples to this `file`")
	f.StringVar(&o.markdown, "markdown", "", "write a page of tables to this `file`")
	f.StringVar(&o.svg, "svg", "", "write a bar chart to this `file`")
	f.StringVar(&o.bin, "bin", "bin", "the `directory` of vswitchd and vswitchctl")
	f.StringVar(&o.from, "from", "", "measure nothing: make the reports of this JSON `file`")
	f.BoolVar(&o.list, "list", false, "list scenarios and subjects")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.rounds < 0 || o.seconds < 0 {
		return o, errors.New("--rounds and --seconds are above 0")
	}
	rounds, seconds := 7, 3
	if o.quick {
		rounds, seconds = 3, 1
	}
	if o.rounds == 0 {
		o.rounds = rounds
	}
	if o.seconds == 0 {
		o.seconds = seconds
	}
	return o, nil
}

// run is the command; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fail := func(status int, err error) int {
		fmt.Fprintf(stderr, "perf: %v\n", err)
		return status
	}
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return fail(2, err)
	}
	if o.from != "" {
		results, err := read(o.from)
		if err != nil {
			return fail(1, err)
		}
		if err := errors.Join(results.WriteTables(stdout), write(o, results)); err != nil {
			return fail(1, err)
		}
		return 0
	}
	scenarios, contenders, err := choose(o)
	if err != nil {
		return fail(2, err)
	}
	if o.list {
		list(stdout, scenarios, contenders)
		return 0
	}
	if os.Geteuid() != 0 {
		return fail(1, errors.New("it makes network namespaces: run it as root"))
	}
	results := &perf.Results{
		Started: time.Now(),
		Command: strings.Join(append([]string{filepath.Join("bin", "perf")}, args...), " "),
		Commit:  perf.SourceCommit(),
		Machine: perf.ThisMachine(),
	}
	runner := perf.Runner{Scenarios: scenarios, Contenders: contenders, Rounds: o.rounds, Seconds: o.seconds, Log: stderr, MachineCPU: perf.MachineCPU}
	err = runner.Run(ctx, results)
	if perf.Interrupted(err) {
		err = errors.New("interrupted; what was measured until then is told")
	}
	// Measured is measured: it is written whatever happened.
	if err := errors.Join(err, results.Failed(), results.WriteTables(stdout), write(o, results)); err != nil {
		return fail(1, err)
	}
	return 0
}

// choose returns what the command line asks for.
func choose(o options) ([]perf.Scenario, []perf.Contender, error) {
	scenarios, contenders := perf.All(), perf.Contenders(subject.All(o.bin))
	var err error
	switch {
	case o.scenarios != "":
		scenarios, err = perf.Select(scenarios, strings.Split(o.scenarios, ","))
	case o.quick:
		scenarios = perf.Quick(scenarios)
	}
	if err == nil && o.subjects != "" {
		contenders = append(contenders, perf.Contenders(subject.Variants(o.bin))...)
		contenders, err = perf.Choose(contenders, strings.Split(o.subjects, ","))
	}
	return scenarios, contenders, err
}

func list(w io.Writer, scenarios []perf.Scenario, contenders []perf.Contender) {
	fmt.Fprintln(w, "scenarios")
	for _, s := range scenarios {
		fmt.Fprintf(w, "  %-18s %s\n", s.Name, s.Title)
	}
	fmt.Fprintln(w, "subjects")
	for _, c := range contenders {
		fmt.Fprintf(w, "  %-18s %s\n", c.Name, c.Title)
	}
}

func read(name string) (*perf.Results, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return perf.ReadJSON(f)
}

// write writes the files that were asked for.
func write(o options, results *perf.Results) error {
	chart := ""
	if o.svg != "" && o.markdown != "" {
		var err error
		if chart, err = filepath.Rel(filepath.Dir(o.markdown), o.svg); err != nil {
			return fmt.Errorf("the chart as seen from the page: %w", err)
		}
		chart = filepath.ToSlash(chart)
	}
	var errs []error
	for _, file := range []struct {
		name  string
		write func(io.Writer) error
	}{
		{o.json, results.WriteJSON},
		{o.markdown, func(w io.Writer) error { return results.WriteMarkdown(w, chart) }},
		{o.svg, results.WriteSVG},
	} {
		if file.name != "" {
			errs = append(errs, writeFile(file.name, file.write))
		}
	}
	return errors.Join(errs...)
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return fmt.Errorf("write %s: %w", name, err)
	}
	return f.Close()
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/config"
	"vswitch/ctl/offline"
)

func (a *app) testConfig() *cobra.Command {
	var expect, inPort string
	var record bool
	cmd := &cobra.Command{
		Use:   "test CONFIG FILE --expect EXPECT",
		Short: "Test a configuration offline: which frames of a capture leave by which ports",
		Long: `Test a configuration offline: put the frames of a capture FILE (pcap or pcapng) into a switch of
CONFIG, a document as export prints it, and compare by which ports they leave, with which tag, and
which are dropped and why, with EXPECT. No daemon, no privileges and no network are needed.

A frame comes in by the port that its interface in a pcapng file is named after, or by --in-port.
Frames that the capture says went out are left out. --record writes EXPECT from what happens.
Exit status 1 says that something went another way.`,
		Example: `  vswitchctl test br0.yaml seen.pcapng --expect expect.yaml --record
  vswitchctl test br0.yaml seen.pcapng --expect expect.yaml`,
		Args: between(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case expect == "":
				return &usageError{"--expect EXPECT is missing: the file of what is expected, or is written with --record", cmd}
			case args[0] == "-" && args[1] == "-":
				return &usageError{"standard input can be read only once", cmd}
			}
			return a.runTest(args[0], args[1], expect, inPort, record)
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) < 2 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.Flags().StringVar(&expect, "expect", "", "the `FILE` that says what is expected")
	cmd.Flags().StringVar(&inPort, "in-port", "", "the `PORT` that all frames come in by")
	cmd.Flags().BoolVar(&record, "record", false, "write the file of what is expected, from what happens")
	cmd.RegisterFlagCompletionFunc("in-port", cobra.NoFileCompletions)
	return cmd
}

// testResult is what test prints.
type testResult struct {
	OK          bool                 `json:"ok"`
	Frames      int                  `json:"frames"` // that came in
	Skipped     int                  `json:"skipped,omitempty"`
	Refused     []string             `json:"refused,omitempty"`
	Differences []offline.Difference `json:"differences"`
	Recorded    string               `json:"recorded,omitempty"` // the file
}

func (a *app) runTest(configFile, captureFile, expectFile, inPort string, record bool) error {
	doc, err := a.document(configFile)
	if err != nil {
		return err
	}
	var want *offline.Expectation
	text, err := os.ReadFile(expectFile)
	switch {
	case record && errors.Is(err, os.ErrNotExist):
		want = &offline.Expectation{}
	case err != nil:
		return err
	default: // a file that is written anew keeps what it says of ports
		if want, err = offline.ReadExpectation(text); err != nil {
			return fmt.Errorf("%s: %w", expectFile, err)
		}
	}
	file, err := a.open(captureFile)
	if err != nil {
		return err
	}
	defer file.Close()
	got, err := offline.Run(doc, want.Ports, file, inPort)
	if err != nil {
		return fmt.Errorf("%s: %w", captureFile, err)
	}
	r := testResult{Frames: len(got.Frames), Skipped: got.Skipped, Refused: got.Refused, Differences: []offline.Difference{}}
	if record {
		text, err := got.Expectation(want.Ports).YAML()
		if err != nil {
			return err
		}
		if err := os.WriteFile(expectFile, text, 0o666); err != nil {
			return err
		}
		r.OK, r.Recorded = true, expectFile
	} else {
		r.Differences = append(r.Differences, got.Compare(want)...)
		r.OK = len(r.Differences) == 0
	}
	if err := a.print(r, func() string { return testText(r) }); err != nil || r.OK {
		return err
	}
	return fmt.Errorf("%s from what %s expects", count(len(r.Differences), "difference"), expectFile)
}

// document reads a document and judges it as the daemon would.
func (a *app) document(name string) (config.Document, error) {
	file, err := a.open(name)
	if err != nil {
		return config.Document{}, err
	}
	defer file.Close()
	var text bytes.Buffer
	if _, err := io.Copy(&text, io.LimitReader(file, config.MaxDocument+1)); err != nil {
		return config.Document{}, fmt.Errorf("read %s: %w", name, err)
	}
	doc, err := config.Parse(text.Bytes())
	if err == nil {
		err = doc.Validate()
	}
	if err != nil {
		return config.Document{}, fmt.Errorf("%s: %w", name, err)
	}
	return doc, nil
}

func testText(r testResult) string {
	var b strings.Builder
	for _, d := range r.Differences {
		head := "the MAC table at the end"
		if d.Number > 0 {
			head = fmt.Sprintf("frame %d, in by %s", d.Number, d.InPort)
		}
		if d.Summary != "" {
			head += ": "
		}
		hang(&b, head, d.Summary)
		for _, s := range d.Missing {
			hang(&b, "  - ", s)
		}
		for _, s := range d.Surplus {
			hang(&b, "  + ", s)
		}
	}
	for _, s := range r.Refused {
		wrapTo(&b, "", width, "refused: "+s)
	}
	switch {
	case r.Recorded != "":
		fmt.Fprintf(&b, "recorded what became of %s in %s\n", count(r.Frames, "frame"), clean(r.Recorded))
	case r.OK:
		fmt.Fprintf(&b, "ok: %s went as expected\n", count(r.Frames, "frame"))
	default:
		fmt.Fprintf(&b, "- was expected, + happened; %s came in\n", count(r.Frames, "frame"))
	}
	return b.String()
}

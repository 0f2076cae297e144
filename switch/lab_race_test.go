//go:build race

package vswitch_test

import "os"

// labRace says that the daemon under test has the race detector in it, and is
// some ten times slower.
const labRace = true

// A program with the race detector rests a second when it ends, and a test runs
// vswitchctl many times.
func init() {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=10")
	}
}

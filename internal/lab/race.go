//go:build race

package lab

import "os"

// raceEnabled says that this test binary was built with the race detector.
const raceEnabled = true

// A program with the race detector rests a second when it ends, and a test runs
// vswitchctl many times.
func init() {
	if os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0")
	}
}

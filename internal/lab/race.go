//go:build race

package lab

// raceEnabled says that this test binary was built with the race detector.
const raceEnabled = true

//go:build race

package vswitch_test

// labRace says that the daemon under test has the race detector in it, and is
// some ten times slower.
const labRace = true

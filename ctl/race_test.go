//go:build race

package ctl_test

// raced says that the daemons under test have the race detector in them, and are
// several times larger and slower.
const raced = true

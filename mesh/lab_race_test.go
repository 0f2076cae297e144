//go:build race

package mesh_test

// raced says that the daemons under test have the race detector in them, and are
// some ten times slower.
const raced = true

// Vswitchctl is the command line of vswitch: it asks the daemon for one change or
// one answer at a time, over the daemon's socket, and prints the result for a
// human or, with -o json or -o yaml, for a program. It holds no state and decides
// nothing: names and values are judged by the daemon.
//
// Its one idea: whoever types at 3 a.m. is told at once what is true, what is
// wrong, and what to do. Each verb group has its file; root.go holds what they
// share, output.go and table.go how things are printed.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is set by the linker: -ldflags "-X main.version=1.0".
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	a := &app{in: os.Stdin, out: os.Stdout, err: os.Stderr, now: time.Now, getenv: os.Getenv}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

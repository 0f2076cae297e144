// Command vswitch-cni is a CNI plug-in: container runtimes run it to plug containers into
// a bridge of vswitchd. docs/cni.md says how.
package main

import (
	"os"

	"vswitch/plug/cni"
)

// version is set by the build.
var version = "unknown"

func main() { os.Exit(cni.Main(os.Stdin, os.Stdout, "CNI plug-in vswitch-cni "+version)) }

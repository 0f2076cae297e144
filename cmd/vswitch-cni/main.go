// Command vswitch-cni is a CNI plug-in: container runtimes run it to plug containers into
// a bridge of vswitchd.
package main

import _ "vswitch/plug/cni"

func main() {}

// Package plug keeps containers plugged in: it makes a veth pair for each plug that is
// wanted, again when the container starts anew, and takes it away when the container is
// gone for good. It switches nothing: the host's end of a pair is a port like any other.
//
// Its one idea: a plug belongs to a container's name. Whatever happens, a restart of the
// container, of its runtime, of the switch, a pair that somebody deletes, leads to the same
// question: what is wanted for that name, where is it now, and what is there?
//
// Its rooms: wire makes pairs, runtimes knows containers, ipam gives addresses, nat and
// names make a bridge a gateway, docker and cni are asked by runtimes, held keeps what
// they asked for.
package plug

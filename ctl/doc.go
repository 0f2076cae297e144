// Package ctl makes the machine match the desired configuration. It has the
// daemon (daemon.go), which owns the desired document and serves the API
// (service.go, status.go); the reconciler (reconcile.go, attach.go, taps.go,
// tunnels.go, mirrors.go), the only one who creates, changes and removes bridges
// and ports; what it knows of other hosts (resolve.go, liveness.go); and the events
// that tell of it (events.go).
//
// Its parts that others need without a daemon are packages of their own: config
// (the document), store (its versions on disk), api (the conversation).
//
// # One idea
//
// There is one document of desired state and one function that makes what is
// match it: it runs at start, after every command, on every change of an
// interface, and when a retry is due. It creates nothing twice and gives up on
// nothing: a port that cannot be up is waiting or in error, says why, and is
// looked at again.
//
// # Locks
//
// Daemon.edit (one change at a time) is taken before reconciler.mu; both before
// any lock of the switch. tunnels.dirtyMu, the resolver's and a BFD session's are
// taken last, and held for a moment only: workers and timers take them. An sFlow
// exporter's is taken after reconciler.mu; its own goroutine, which holds it, only tries
// the latter. What a session notices it tells the switch itself, without reconciler.mu,
// which may be held for seconds. Nothing is sent to a subscriber with a lock held that
// a slow one could hold up: events are dropped for it and counted.
package ctl

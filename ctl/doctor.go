package ctl

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

// doctorLimit is how long all checks together take at most: what has not come to an
// end then could not be told.
const doctorLimit = api.MaxDoctor - 3*time.Second

// Doctor is described at api.Service. It changes nothing that forwards: what it makes
// to try something out is its own, and goes with it.
func (d *Daemon) Doctor(ctx context.Context, q api.DoctorQuery) (api.Doctor, error) {
	bridges, err := d.chosen(q.Bridge)
	if err != nil {
		return api.Doctor{}, err
	}
	if !d.doctoring.TryLock() {
		return api.Doctor{}, &api.Error{Status: 409, Message: "another doctor is under way; it takes some seconds: try again"}
	}
	defer d.doctoring.Unlock()
	status, err := d.Status(ctx, q.Bridge)
	if err != nil {
		return api.Doctor{}, err
	}
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, doctorLimit)
	defer cancel()
	x := &doctor{Daemon: d, query: q, bridges: bridges, status: status}
	d.reconciler.removeDoctored() // of one that was killed
	x.checkHost()
	x.checkConfiguration()
	x.checkPorts()
	x.checkAddresses()
	x.checkLosses(ctx)
	d.history.add(d.lookAtLosses(begun))
	x.checkLeftovers()
	var running sync.WaitGroup
	for _, slow := range []func(context.Context){x.checkKernel, x.checkTunnels, x.checkChecksums, x.checkPeer} {
		running.Go(func() { slow(ctx) }) // ended by ctx
	}
	running.Wait()
	return x.result(time.Since(begun)), nil
}

// doctor is one look at everything.
//
// Thread-safety: add may be called from any goroutine; the rest does not change.
type doctor struct {
	*Daemon
	query   api.DoctorQuery
	bridges []config.Bridge // that are to be looked at
	status  api.Status

	mu    sync.Mutex
	found []api.Finding
}

func (x *doctor) add(group, check, subject, status, what, fix string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.found = append(x.found, api.Finding{Group: group, Check: check, Subject: subject, Status: status, What: what, Fix: fix})
}

// ok, warn, fail and unknown add a finding of their status.
func (x *doctor) ok(group, check, subject, what string, args ...any) {
	x.add(group, check, subject, api.StatusOK, fmt.Sprintf(what, args...), "")
}

func (x *doctor) warn(group, check, subject, fix, what string, args ...any) {
	x.add(group, check, subject, api.StatusWarn, fmt.Sprintf(what, args...), fix)
}

func (x *doctor) fail(group, check, subject, fix, what string, args ...any) {
	x.add(group, check, subject, api.StatusFail, fmt.Sprintf(what, args...), fix)
}

func (x *doctor) unknown(group, check, subject, fix, what string, args ...any) {
	x.add(group, check, subject, api.StatusUnknown, "could not tell: "+fmt.Sprintf(what, args...), fix)
}

// result puts what was found in order: by group, the worst first, and else as it was
// found.
func (x *doctor) result(took time.Duration) api.Doctor {
	x.mu.Lock()
	defer x.mu.Unlock()
	res := api.Doctor{Findings: x.found, Took: took}
	rank := func(f api.Finding) int {
		return 4*slices.Index(api.DoctorGroups, f.Group) + slices.Index([]string{api.StatusFail, api.StatusWarn, api.StatusUnknown, api.StatusOK}, f.Status)
	}
	slices.SortStableFunc(res.Findings, func(a, b api.Finding) int { return rank(a) - rank(b) })
	for _, f := range res.Findings {
		switch f.Status {
		case api.StatusOK:
			res.OK++
		case api.StatusWarn:
			res.Warn++
		case api.StatusFail:
			res.Fail++
		default:
			res.Unknown++
		}
	}
	return res
}

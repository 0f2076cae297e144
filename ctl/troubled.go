package ctl

import (
	"slices"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

// openLimit is how long a change waits for the files of its mirrors to be opened,
// which the mirrors' own goroutines do. Of a disk that takes longer an event tells.
const openLimit = 500 * time.Millisecond

// troubledMirrors returns the mirrors that a change touched and that do not work.
func (d *Daemon) troubledMirrors(old, doc config.Document) []api.MirrorStatus {
	limit := time.NewTimer(openLimit)
	defer limit.Stop()
	var all []api.MirrorStatus
	for _, ms := range d.reconciler.touchedMirrors(old, doc) {
		select {
		case <-ms.file.opened:
		default:
			select {
			case <-ms.file.opened:
			case <-limit.C:
				return all
			}
		}
		only := &bridgeState{mirrors: map[string]*mirrorState{ms.mirror.Name: ms}}
		for _, st := range mirrorStatus(only, nil) {
			if st.State != "up" {
				st.Bridge = ms.bridge
				all = append(all, st)
			}
		}
	}
	return all
}

// touchedMirrors returns the mirrors with a file that doc has otherwise than old,
// in the order of the document.
func (r *reconciler) touchedMirrors(old, doc config.Document) (touched []*mirrorState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		st, ob := r.bridges[b.Name], old.Bridge(b.Name)
		if st == nil {
			continue
		}
		for _, m := range b.Mirrors {
			ms := st.mirrors[m.Name]
			if ms == nil || ms.file == nil || ob != nil && slices.ContainsFunc(ob.Mirrors, m.Equal) {
				continue
			}
			touched = append(touched, ms)
		}
	}
	return touched
}

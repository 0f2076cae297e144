package ctl

import (
	"fmt"

	"vswitch/capture"
	"vswitch/ctl/api"
	"vswitch/ctl/config"
	vswitch "vswitch/switch"
)

// mirrorState is a mirror that exists in the switch.
type mirrorState struct {
	mirror config.Mirror
	config vswitch.MirrorConfig
	file   *capture.File // nil: it writes none
	reason string        // why it does not work
	failed bool          // told that its file fails
}

// mirrorsLocked makes a bridge's mirrors as they should be. A mirror that did not
// change goes on undisturbed; the files of others are closed by the switch.
func (r *reconciler) mirrorsLocked(b *config.Bridge) {
	st := r.bridges[b.Name]
	if st == nil {
		return
	}
	next := map[string]*mirrorState{}
	var configs []vswitch.MirrorConfig
	var reopen []*mirrorState
	for _, m := range b.Mirrors {
		if old := st.mirrors[m.Name]; old != nil && old.mirror.Equal(m) && (old.file != nil || old.reason == "") {
			next[m.Name] = old
			configs = append(configs, old.config)
			continue
		}
		ms := &mirrorState{mirror: m, config: mirrorConfig(m)}
		next[m.Name] = ms
		if m.Options.IsSet("output_pcap") {
			reopen = append(reopen, ms)
			continue
		}
		configs = append(configs, ms.config)
	}
	if len(next) == 0 && len(st.mirrors) == 0 {
		return
	}
	// Those that changed or went are closed before a file is opened anew: it may
	// be the same one.
	r.setMirrors(b.Name, configs)
	for _, ms := range reopen {
		ms.open()
		if ms.reason != "" {
			r.log.Warn("mirror does not work", "bridge", b.Name, "mirror", ms.mirror.Name, "err", ms.reason)
		}
		if ms.file != nil {
			configs = append(configs, ms.config)
		}
	}
	if len(reopen) > 0 {
		r.setMirrors(b.Name, configs)
	}
	st.mirrors = next
}

func (r *reconciler) setMirrors(bridge string, configs []vswitch.MirrorConfig) {
	if err := r.sw.SetMirrors(bridge, configs); err != nil {
		r.log.Error("mirrors could not be set", "bridge", bridge, "err", err)
	}
}

// mirrorConfig turns a mirror's options into what the switch wants to be told.
func mirrorConfig(m config.Mirror) vswitch.MirrorConfig {
	o := m.Options
	c := vswitch.MirrorConfig{
		Name: m.Name, All: o.Bool("select_all"), Src: o.List("select_src_port"), Dst: o.List("select_dst_port"),
		OutPort: o.Text("output_port"), OutVLAN: -1, Snap: o.Int("snaplen"),
	}
	if o.IsSet("select_vlan") {
		c.VLANs = vlanSet(o.Ranges("select_vlan"))
	}
	if o.IsSet("output_vlan") {
		c.OutVLAN = o.Int("output_vlan")
	}
	return c
}

// open opens a mirror's capture file. A file that cannot be written now is tried
// again by itself, so the mirror runs all the same.
func (m *mirrorState) open() {
	o := m.mirror.Options
	f, err := capture.NewFile(capture.FileOptions{
		Options: capture.Options{SnapLen: o.Int("snaplen"), OS: "Linux", Application: "vswitchd", Comment: "mirror " + m.mirror.Name},
		Path:    o.Text("output_pcap"), Size: int64(o.Int("rotate")), Files: o.Int("files"),
	})
	if err != nil {
		m.reason = err.Error()
	}
	if f != nil {
		m.file, m.config.Sink = f, f
	}
}

// watchMirrorsLocked tells when a capture file begins to fail or works again.
func (r *reconciler) watchMirrorsLocked(st *bridgeState) {
	for name, m := range st.mirrors {
		if m.file == nil {
			continue
		}
		fs := m.file.Status()
		m.reason = ""
		if fs.Err != nil {
			m.reason = fs.Err.Error()
		}
		if failed := fs.Err != nil; failed != m.failed {
			m.failed = failed
			msg := "mirror " + name + " writes to " + fs.Path + " again"
			if failed {
				msg = fmt.Sprintf("mirror %s cannot write to %s: %v; frames are forwarded all the same", name, fs.Path, fs.Err)
			}
			r.log.Warn(msg)
			r.tell(api.Event{Kind: "mirror-error", Message: msg})
		}
	}
}

// closeMirrorsLocked forgets a bridge's mirrors; the switch closes their files.
func (r *reconciler) closeMirrorsLocked(st *bridgeState) { clear(st.mirrors) }

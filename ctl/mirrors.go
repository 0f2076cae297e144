package ctl

import (
	"fmt"

	"vswitch/capture"
	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ctl/translate"
	vswitch "vswitch/switch"
)

// mirrorState is a mirror that exists in the switch.
type mirrorState struct {
	bridge string
	mirror config.Mirror
	config vswitch.MirrorConfig
	file   *pcapFile // nil: it writes none
	failed bool      // told that its file fails
}

// mirrorsLocked makes a bridge's mirrors as they should be. A mirror that did not
// change goes on undisturbed; the files of others are closed by the switch.
func (r *reconciler) mirrorsLocked(b *config.Bridge) {
	st := r.bridges[b.Name]
	if st == nil {
		return
	}
	next := map[string]*mirrorState{}
	configs := []vswitch.MirrorConfig{}
	for _, m := range b.Mirrors {
		ms := st.mirrors[m.Name]
		if ms == nil || !ms.mirror.Equal(m) {
			ms = &mirrorState{bridge: b.Name, mirror: m, config: translate.Mirror(m)}
			if m.Options.IsSet("output_pcap") {
				ms.file = r.pcapFile(m)
				ms.config.Sink = ms.file
			}
		}
		next[m.Name] = ms
		configs = append(configs, ms.config)
	}
	if len(next) == 0 && len(st.mirrors) == 0 {
		return
	}
	if err := r.sw.SetMirrors(b.Name, configs); err != nil {
		r.log.Error("mirrors could not be set", "bridge", b.Name, "err", err)
	}
	st.mirrors = next
}

// pcapFile returns a mirror's new capture file, which waits for the last one of
// its path to be closed.
func (r *reconciler) pcapFile(m config.Mirror) *pcapFile {
	for path, f := range r.files {
		select {
		case <-f.closed:
			delete(r.files, path)
		default:
		}
	}
	o := m.Options
	path := o.Text("output_pcap")
	f := newPcapFile(capture.FileOptions{
		Options: capture.Options{SnapLen: o.Int("snaplen"), OS: "Linux", Application: "vswitchd", Comment: "mirror " + m.Name},
		Path:    path, Size: int64(o.Int("rotate")), Files: o.Int("files"),
		Dirs: r.captureDirs, Except: r.privateDirs,
	}, r.files[path])
	r.files[path] = f
	return f
}

// watchMirrorsLocked tells when a capture file begins to fail or works again.
func (r *reconciler) watchMirrorsLocked(st *bridgeState) {
	for name, m := range st.mirrors {
		if m.file == nil {
			continue
		}
		fs := m.file.status()
		if failed := fs.Err != nil; failed != m.failed {
			m.failed = failed
			kind, msg := "mirror-up", "mirror "+name+" writes to "+fs.Path+" again"
			if failed {
				kind, msg = "mirror-error", fmt.Sprintf("mirror %s cannot write to %s: %v; frames are forwarded all the same", name, fs.Path, fs.Err)
			}
			r.log.Warn(msg)
			r.tell(api.Event{Kind: kind, Bridge: m.bridge, Message: msg, Detail: map[string]any{"mirror": name}})
		}
	}
}

// closeMirrorsLocked forgets a bridge's mirrors; the switch closes their files.
func (r *reconciler) closeMirrorsLocked(st *bridgeState) { clear(st.mirrors) }

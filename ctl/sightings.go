package ctl

import (
	"fmt"
	"strconv"

	"vswitch/capture"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

// sightingComment says in a line what a sighting tells beside the frame: where it
// was, in which VLAN, and what became of it.
//
//	br0 veth1 in vlan 10 -> veth2 and 4 more
//	br0 veth1 in: dropped: vlan-not-trunked
//	br0 veth2 out vlan 10, made by the switch
func sightingComment(s *vswitch.Sighting) string {
	b := make([]byte, 0, 96)
	if s.Bridge != "" {
		b = append(append(b, s.Bridge...), ' ')
	}
	b = append(append(b, s.Port...), ' ')
	b = append(b, directionWord(s.Direction)...)
	if s.VLAN != 0 {
		b = strconv.AppendUint(append(b, " vlan "...), uint64(s.VLAN), 10)
	}
	if s.Reason != vswitch.DropNone {
		b = append(append(b, ": dropped: "...), s.Reason.String()...)
	} else if s.Output != "" {
		b = append(append(b, " -> "...), s.Output...)
		if s.Outputs > 1 {
			b = fmt.Appendf(b, " and %d more", s.Outputs-1)
		}
	}
	if s.Own {
		b = append(b, ", made by the switch"...)
	}
	if s.Skipped > 0 {
		b = fmt.Appendf(b, ", stands for 1+%d frames", s.Skipped)
	}
	return string(b)
}

// directionWord is how the API and comments spell a direction.
func directionWord(d capture.Direction) string {
	switch d {
	case capture.Inbound:
		return "in"
	case capture.Outbound:
		return "out"
	}
	return ""
}

// wire turns frames as the switch holds them into frames as they are on a wire: the
// tag in the bytes, checksums finished, and, if it is asked to, a super-frame as the
// segments it stands for.
//
// Thread-safety: none; it belongs to one reader.
type wire struct {
	split bool
	snap  int // bytes of a frame that are kept; 0: all

	data      []byte
	pool      *frame.Pool // of the frame to split, and a segment; nil: none was split yet
	segmenter frame.Segmenter
}

func newWire(split bool, snap int) *wire {
	return &wire{split: split, snap: snap, data: make([]byte, frame.MaxLen+2*frame.TagLen)}
}

func (w *wire) close() {
	if w.pool != nil {
		w.pool.Close()
	}
}

// heldFrame is a frame as the switch holds it.
type heldFrame struct {
	data    []byte // without the tag
	tag     frame.Tag
	offload frame.Offload
	wireLen int // bytes of the whole, tag included
}

// frames calls each with what h is on the wire, until each returns false: its bytes,
// which are valid during the call, and how many they were before they were cut. note
// is what there is to say of it, or empty.
func (w *wire) frames(h *heldFrame, each func(data []byte, wireLen int, note string) bool) {
	tagLen := 0
	if h.tag.Present() {
		tagLen = frame.TagLen
	}
	whole := len(h.data)+tagLen >= h.wireLen
	note := ""
	if w.split && h.offload.Super() {
		if !whole {
			note = "a super-frame, of which too little is here to split it"
		} else if did, _ := w.segments(h, each); did {
			return
		} else {
			note = "a super-frame that cannot be split"
		}
	}
	b := w.data[frame.TagLen:]
	b = b[:copy(b, h.data)]
	if whole {
		// Headers that cannot be finished are shown as they are, and so is the checksum
		// of a frame that is not here in full: nobody can verify that.
		_ = frame.Finish(b, &h.offload)
	}
	if tagLen > 0 && len(b) >= frame.AddrLen {
		b = h.tag.Insert(w.data[:frame.TagLen+len(b)])
	}
	each(w.cut(b), h.wireLen, note)
}

// segments is frames for a super-frame that is here in full; did is false when it is
// none that can be split, and then each was not called.
func (w *wire) segments(h *heldFrame, each func([]byte, int, string) bool) (did bool, err error) {
	if w.pool == nil {
		if w.pool, err = frame.NewPool(2); err != nil {
			return false, err
		}
	}
	if len(h.data) > frame.MaxLen {
		return false, frame.ErrLong
	}
	super, segment := w.pool.Get(), w.pool.Get()
	defer w.pool.Release(segment)
	defer w.pool.Release(super)
	super.Set(h.data)
	super.Offload = h.offload
	if err := w.segmenter.Start(super); err != nil {
		return false, err
	}
	for w.segmenter.Next(segment) {
		if h.tag.Present() {
			segment.PushTag(h.tag)
		}
		if !each(w.cut(segment.Bytes()), segment.Len(), "") {
			break
		}
	}
	return true, nil
}

// cut cuts a frame to the snap length.
func (w *wire) cut(b []byte) []byte {
	if w.snap > 0 {
		return b[:min(len(b), w.snap)]
	}
	return b
}

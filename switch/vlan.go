package vswitch

import "vswitch/frame"

// VLANMode says how a port treats 802.1Q tags; the words and their meaning are
// those of ovs-vswitchd.conf.db(5), column vlan_mode of table Port.
type VLANMode uint8

// The modes.
const (
	// Trunk: a frame is in the VLAN of its tag, or in VLAN 0 without one; it
	// leaves with a tag, in VLAN 0 with its priority tag or none.
	Trunk VLANMode = iota
	// Access: untagged frames are in VLAN Tag, tagged ones are dropped; frames
	// leave untagged.
	Access
	// NativeTagged is Trunk, but untagged frames are in VLAN Tag, and VLAN 0 is
	// not carried, if Tag is another.
	NativeTagged
	// NativeUntagged is NativeTagged, but frames in VLAN Tag leave untagged.
	NativeUntagged
)

// VLANSet is a set of VLAN identifiers, one bit each.
type VLANSet [4096 / 64]uint64

// Add puts vid into the set.
func (s *VLANSet) Add(vid uint16) { s[vid&0xfff>>6] |= 1 << (vid & 63) }

// Has reports whether vid is in the set.
func (s *VLANSet) Has(vid uint16) bool { return s[vid&0xfff>>6]&(1<<(vid&63)) != 0 }

// VLAN is a port's VLAN configuration.
//
// Thread-safety: immutable once given to a port.
type VLAN struct {
	Mode   VLANMode
	Tag    uint16   // the VLAN of Access, the native VLAN of the native modes
	Trunks *VLANSet // nil: all
}

// member reports whether the port is in VLAN vid: whether frames in it may leave
// by the port.
func (v *VLAN) member(vid uint16) bool {
	switch {
	case v.Mode == Access:
		return vid == v.Tag
	case v.Mode != Trunk && vid == v.Tag:
		return true // the native VLAN is always trunked
	case v.Mode != Trunk && vid == 0:
		// VLAN 0 would leave without a tag, and so turn into the native VLAN.
		return false
	}
	return v.Trunks == nil || v.Trunks.Has(vid)
}

// admit tells which VLAN a frame with tag t is in when it comes in by the port.
// A tag with VID 0 (a priority tag) counts as none.
func (v *VLAN) admit(t frame.Tag) (vid uint16, why Reason) {
	vid = t.VID()
	switch {
	case v.Mode == Access:
		if vid != 0 {
			return 0, DropVLANTagged
		}
		return v.Tag, DropNone
	case v.Mode != Trunk && vid == 0:
		return v.Tag, DropNone
	case !v.member(vid):
		return 0, DropVLANNotTrunked
	}
	return vid, DropNone
}

// egress returns the tag with which a frame in VLAN vid, that came in with tag t,
// leaves by the port. The priority goes along where there is a tag to carry it. In
// VLAN 0 only a priority other than 0 is worth a tag, as in OVS by default (what
// it does: its manual, under priority-tags, promises less).
func (v *VLAN) egress(vid uint16, t frame.Tag) frame.Tag {
	switch {
	case v.Mode == Access || v.Mode == NativeUntagged && vid == v.Tag:
		return frame.Tag{}
	case vid == 0 && t.TCI>>13 == 0:
		return frame.Tag{}
	case !t.Present():
		return frame.Tag{TPID: frame.TPID8021Q, TCI: vid}
	}
	return frame.Tag{TPID: t.TPID, TCI: t.TCI&^0xfff | vid}
}

package frame

// Encapsulated reports whether a super-frame's outer transport is not the one that
// is to be segmented: its sender put it into a tunnel (VXLAN in a container, say)
// and left the cutting to us. A virtio-net header cannot say so. Call it after Check
// returned nil, for a frame with Super().
func (f *Frame) Encapsulated() bool {
	l, err := Parse(f.Bytes())
	return err == nil && l.L4 != int(f.CsumStart)
}

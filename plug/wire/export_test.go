package wire

var Making = making

// RoutesKept is how many of a container's routes are held in memory to see to those of s.
func RoutesKept(n *Namespace, s Spec) (int, error) {
	in, err := n.netlink()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	peer, err := in.LinkByName(s.IfName)
	if err != nil {
		return 0, err
	}
	w := &work{s: &s, n: n, in: in, peer: peer}
	list, err := w.routes(s.all())
	return len(list), err
}

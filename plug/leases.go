package plug

import (
	"net/netip"
	"slices"

	"vswitch/plug/ipam"
	"vswitch/plug/wire"
)

// lease adds the addresses of pools to s, and notes in the pools those given by hand. What
// the plug had stays leased until it has the new ones.
func (k *Keeper) lease(p *kept, w *Want, s *wire.Spec) error {
	k.leasing.Lock()
	defer k.leasing.Unlock()
	g, owner := w.Plug, w.owner()
	use := func(at leasedAt) {
		if !slices.Contains(p.leased, at) {
			p.leased = append(p.leased, at)
		}
	}
	for _, pool := range w.Pools {
		v4 := pool.Subnet.Addr().Is4()
		at := leasedAt{pool.Name, owner}
		if v4 && g.Auto4 || !v4 && g.Auto6 {
			a, err := k.leases.Lease(pool, owner, w.Others)
			if err != nil {
				return err
			}
			s.Addresses = append(s.Addresses, netip.PrefixFrom(a, pool.Subnet.Bits()))
			use(at)
		}
		for _, a := range g.Addresses {
			if a.Addr().Is4() != v4 || !pool.Subnet.Contains(a.Addr()) {
				continue
			}
			if err := k.leases.Reserve(pool.Name, a.Addr(), owner); err != nil {
				return err
			}
			use(at)
		}
	}
	return nil
}

// unlease frees what a plug does not have any more, now that it has what s says.
func (k *Keeper) unlease(p *kept, w *Want, s *wire.Spec) error {
	k.leasing.Lock()
	defer k.leasing.Unlock()
	owner := w.owner()
	has := func(l ipam.Lease) bool {
		return slices.ContainsFunc(w.Pools, func(q ipam.Pool) bool { return q.Name == l.Pool }) &&
			slices.ContainsFunc(s.Addresses, func(a netip.Prefix) bool { return a.Addr() == l.Addr })
	}
	var used []leasedAt
	for _, old := range p.leased {
		if old.owner != owner {
			if k.shared(p, old.owner) {
				continue
			}
			if err := k.leases.Release(old.pool, old.owner); err != nil {
				return err
			}
			k.past.forget(old.owner)
		}
	}
	for _, l := range k.leases.Of(owner) {
		if has(l) {
			if at := (leasedAt{l.Pool, owner}); !slices.Contains(used, at) {
				used = append(used, at)
			}
			continue
		}
		if k.shared(p, owner) {
			continue
		}
		if err := k.leases.ReleaseAddr(l.Pool, l.Addr); err != nil {
			return err
		}
	}
	p.leased = used
	return nil
}

func (k *Keeper) release(p *kept, held []leasedAt) error {
	k.leasing.Lock()
	defer k.leasing.Unlock()
	for _, l := range held {
		if k.shared(p, l.owner) {
			continue
		}
		if err := k.leases.Release(l.pool, l.owner); err != nil {
			return err
		}
	}
	return nil
}

// shared says whether another plug that is wanted has the leases of owner: a plug that
// moved to another bridge, or got another port, keeps its name.
func (k *Keeper) shared(p *kept, owner string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, other := range k.plugs {
		if other != p && other.wanted && other.want.owner() == owner {
			return true
		}
	}
	return false
}

// giveBack frees what owner leased since it had had.
func (k *Keeper) giveBack(owner string, had []ipam.Lease) {
	for _, l := range k.leases.Of(owner) {
		if slices.Contains(had, l) {
			continue
		}
		if err := k.leases.ReleaseAddr(l.Pool, l.Addr); err != nil {
			k.o.Log.Warn("an address could not be given back", "address", l.Addr, "err", err)
		}
	}
}

// Collect frees the leases that no plug has: their daemon died between the lease and the
// plug, or while it unplugged. pools are those whose leases are the keeper's; keep says
// which owners stay though there is no plug.
func (k *Keeper) Collect(keep func(ipam.Lease) bool) {
	k.mu.Lock()
	owners, ports := map[string]bool{}, map[string]bool{}
	for port, p := range k.plugs {
		owners[p.want.owner()], ports[port] = true, true
	}
	k.mu.Unlock()
	k.past.Prune(owners, ports)
	for _, l := range k.leases.Leases("") {
		if owners[l.Owner] || keep(l) {
			continue
		}
		if err := k.leases.ReleaseAddr(l.Pool, l.Addr); err != nil {
			k.o.Log.Warn("an address that nobody has could not be freed", "address", l.Addr, "err", err)
			continue
		}
		k.o.Log.Info("freed an address that nobody has any more", "pool", l.Pool, "address", l.Addr, "owner", l.Owner)
	}
}

package ipam

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// What is on disk: one bucket. A key is pool, NUL, address; a value is JSON. The value says
// pool and address, too, so that either half tells which address a damaged record is of.

var bucket = []byte("leases")

// DamagedOwner has the addresses whose records cannot be read. They are not given again until
// ReleaseAddr frees them.
const DamagedOwner = "unknown (damaged record)"

// record is a lease, or a freed address, whose owner is the last that had it.
type record struct {
	Lease
	Freed time.Time `json:"freed,omitzero"`
}

func (p place) key() []byte { return []byte(p.pool + "\x00" + p.addr.String()) }

// parseKey reads a key as place.key writes it.
func parseKey(k []byte) (p place, ok bool) {
	pool, text, ok := bytes.Cut(k, []byte{0})
	if !ok || checkName("pool", string(pool)) != nil {
		return p, false
	}
	a, err := netip.ParseAddr(string(text))
	p = place{string(pool), a}
	return p, err == nil && usable(a) && bytes.Equal(k, p.key())
}

func usable(a netip.Addr) bool { return a.IsValid() && a.Zone() == "" && !a.Is4In6() }

// parseRecord reads a record. If it is damaged, r is the least that is sure: its address is
// valid if it can be told.
func parseRecord(k, v []byte) (r record, err error) {
	at, keyed := parseKey(k)
	err = json.Unmarshal(v, &r)
	valued := checkName("pool", r.Pool) == nil && usable(r.Addr)
	switch {
	case err == nil && keyed && (place{r.Pool, r.Addr}) == at && checkName("owner", r.Owner) == nil && !r.Since.IsZero():
		return r, nil
	case keyed:
		err = cmp.Or(err, errors.New("it is not a lease of that address"))
		return record{Lease: Lease{Pool: at.pool, Addr: at.addr}}, err
	case valued:
		return record{Lease: Lease{Pool: r.Pool, Addr: r.Addr}}, cmp.Or(err, errors.New("its key is damaged"))
	}
	return record{}, cmp.Or(err, errors.New("neither its key nor its value names an address"))
}

// load fills the maps.
func (s *Store) load() error {
	type freed struct {
		place
		owner string
		at    time.Time
	}
	type damaged struct {
		place
		key string
	}
	var old []freed
	var bad []damaged
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			r, err := parseRecord(k, v)
			p := place{r.Pool, r.Addr}
			if err != nil {
				told := "is left alone"
				if p.addr.IsValid() {
					told = fmt.Sprintf("so %s of %s is not given to anybody", p.addr, p.pool)
					bad = append(bad, damaged{p, string(k)})
				}
				s.damaged = append(s.damaged, fmt.Sprintf("record %q is damaged, %s: %v", k, told, err))
				return nil
			}
			s.clock = later(s.clock, r.Since)
			if r.Freed.IsZero() {
				s.hold(p, held{owner: r.Owner, since: r.Since})
				return nil
			}
			s.clock = later(s.clock, r.Freed)
			s.network(p.net()).used.add(p.addr)
			old = append(old, freed{p, r.Owner, r.Freed})
			return nil
		})
	})
	if err != nil {
		return err
	}
	slices.SortFunc(old, func(a, b freed) int { return cmp.Or(a.at.Compare(b.at), comparePlaces(a.place, b.place)) })
	for _, f := range old {
		n := s.network(f.net())
		n.freed = append(n.freed, vacant{f.addr, f.owner})
	}
	for _, d := range bad {
		n := s.network(d.net())
		if _, ok := n.leased[d.addr]; ok {
			continue // a sound record says more
		}
		h := held{owner: DamagedOwner, since: time.Now().UTC()}
		if d.key != string(d.place.key()) {
			h.key = d.key
		}
		n.freed = slices.DeleteFunc(n.freed, func(v vacant) bool { return v.addr == d.addr })
		s.hold(d.place, h)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// network is that of a key; it is made if it is not there.
func (s *Store) network(k netKey) *network {
	n := s.nets[k]
	if n == nil {
		n = &network{leased: map[netip.Addr]held{}}
		s.nets[k] = n
	}
	return n
}

// hold notes a lease.
func (s *Store) hold(p place, h held) {
	n := s.network(p.net())
	n.leased[p.addr] = h
	n.used.add(p.addr)
	s.owners[h.owner] = append(s.owners[h.owner], p)
}

// drop undoes hold.
func (s *Store) drop(p place) {
	n := s.nets[p.net()]
	owner := n.leased[p.addr].owner
	delete(n.leased, p.addr)
	n.used.remove(p.addr)
	rest := slices.DeleteFunc(s.owners[owner], func(q place) bool { return q == p })
	if s.owners[owner] = rest; len(rest) == 0 {
		delete(s.owners, owner)
	}
}

// change is one step: what is freed, and then what is given.
type change struct {
	free  []place // leased ones
	give  *place  // one that is not leased
	owner string  // of give
}

// commitLocked writes a change, and then makes it so in memory. When it fails, nothing has
// changed here, and on disk either: or the next record of the address overwrites it.
func (s *Store) commitLocked(c change) error {
	// Each moment is later than all before, though the clock be set back.
	now := time.Now().UTC()
	moment := func() time.Time {
		if !now.After(s.clock) {
			now = s.clock.Add(1)
		}
		s.clock = now
		return now
	}
	freed := map[netKey][]vacant{} // as it will be
	list := func(k netKey) []vacant {
		if _, ok := freed[k]; !ok {
			var was []vacant
			if n := s.nets[k]; n != nil {
				was = slices.Clone(n.freed)
			}
			freed[k] = was
		}
		return freed[k]
	}
	var forgotten []place
	var since time.Time
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for _, p := range c.free {
			h := s.nets[p.net()].leased[p.addr]
			if h.key != "" {
				if err := b.Delete([]byte(h.key)); err != nil {
					return err
				}
			}
			if err := put(b, record{Lease{p.pool, p.addr, h.owner, h.since}, moment()}); err != nil {
				return err
			}
			now := append(list(p.net()), vacant{p.addr, h.owner})
			for ; len(now) > s.maxFreed; now = now[1:] {
				oldest := place{p.pool, now[0].addr}
				if err := b.Delete(oldest.key()); err != nil {
					return err
				}
				forgotten = append(forgotten, oldest)
			}
			freed[p.net()] = now
		}
		if c.give != nil {
			since = moment()
			now := list(c.give.net())
			freed[c.give.net()] = slices.DeleteFunc(now, func(v vacant) bool { return v.addr == c.give.addr })
			return put(b, record{Lease: Lease{c.give.pool, c.give.addr, c.owner, since}})
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range c.free {
		s.drop(p)
		s.nets[p.net()].used.add(p.addr)
	}
	for _, p := range forgotten {
		s.nets[p.net()].used.remove(p.addr)
	}
	if c.give != nil {
		s.hold(*c.give, held{owner: c.owner, since: since})
	}
	for k, now := range freed {
		s.network(k).freed = now
	}
	return nil
}

func put(b *bbolt.Bucket, r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return b.Put(place{r.Pool, r.Addr}.key(), text)
}

// Dump writes all that is known into tx, which is of an empty file, as Open reads it. When
// an address was freed is not known any more; their order is.
func (s *Store) Dump(tx *bbolt.Tx) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := tx.CreateBucketIfNotExists(bucket)
	if err != nil {
		return err
	}
	for key, n := range s.nets {
		for a, l := range n.leased {
			if err := put(b, record{Lease: Lease{key.pool, a, l.owner, l.since}}); err != nil {
				return err
			}
		}
		for i, v := range n.freed {
			at := s.clock.Add(time.Duration(i - len(n.freed)))
			if err := put(b, record{Lease{key.pool, v.addr, v.owner, at}, at}); err != nil {
				return err
			}
		}
	}
	return nil
}

// forgetLocked deletes all records of a pool.
func (s *Store) forgetLocked(pool string) error {
	var all []place
	var odd []string
	for _, v4 := range []bool{true, false} {
		n := s.nets[netKey{pool, v4}]
		if n == nil {
			continue
		}
		for _, v := range n.freed {
			all = append(all, place{pool, v.addr})
		}
		for a, h := range n.leased {
			all = append(all, place{pool, a})
			if h.key != "" {
				odd = append(odd, h.key)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for _, p := range all {
			odd = append(odd, string(p.key()))
		}
		for _, k := range odd {
			if err := b.Delete([]byte(k)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range all {
		if _, ok := s.nets[p.net()].leased[p.addr]; ok {
			s.drop(p)
		}
	}
	delete(s.nets, netKey{pool, true})
	delete(s.nets, netKey{pool, false})
	return nil
}

package plug

import (
	"encoding/json"
	"fmt"
	"reflect"
	"sync"

	"go.etcd.io/bbolt"

	"vswitch/plug/wire"
)

// Past remembers over restarts which containers were there once (one that never was is
// waited for, one that is gone is unplugged), and what was made for each port (of which
// what is not wanted any more is taken back).
//
// Thread-safety: safe for concurrent use.
type Past struct {
	db *bbolt.DB

	mu     sync.Mutex
	owners map[string]bool
	specs  map[string]wire.Spec // by port
}

var pastBucket, madeBucket = []byte("seen"), []byte("made")

// OpenPast reads what db remembers, which stays the caller's.
func OpenPast(db *bbolt.DB) (*Past, error) {
	p := &Past{db: db, owners: map[string]bool{}, specs: map[string]wire.Spec{}}
	err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(pastBucket)
		if err != nil {
			return err
		}
		if err := b.ForEach(func(k, _ []byte) error {
			p.owners[string(k)] = true
			return nil
		}); err != nil {
			return err
		}
		if b, err = tx.CreateBucketIfNotExists(madeBucket); err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			var s wire.Spec
			if json.Unmarshal(v, &s) == nil { // else what is there is changed without it
				p.specs[string(k)] = s
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read which containers were there: %w", err)
	}
	return p, nil
}

func (p *Past) seen(owner string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.owners[owner]
}

// see and forget remember as far as the disk lets them: what is lost is that a plug
// waits instead of going.
func (p *Past) see(owner string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.owners[owner] {
		return
	}
	p.owners[owner] = true
	_ = p.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(pastBucket).Put([]byte(owner), []byte{1}) })
}

func (p *Past) forget(owner string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.owners[owner] {
		return
	}
	delete(p.owners, owner)
	_ = p.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(pastBucket).Delete([]byte(owner)) })
}

// made is what was made for a port; nil: nothing is known.
func (p *Past) made(port string) *wire.Spec {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.specs[port]; ok {
		return &s
	}
	return nil
}

// make and unmake remember what was made, as far as the disk lets them.
func (p *Past) make(port string, s wire.Spec) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if was, ok := p.specs[port]; ok && reflect.DeepEqual(was, s) {
		return
	}
	p.specs[port] = s
	text, err := json.Marshal(s)
	if err != nil {
		return // addresses and names only: cannot happen
	}
	_ = p.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(madeBucket).Put([]byte(port), text) })
}

func (p *Past) unmake(port string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.specs[port]; !ok {
		return
	}
	delete(p.specs, port)
	_ = p.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(madeBucket).Delete([]byte(port)) })
}

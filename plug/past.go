package plug

import (
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
)

// Past remembers which containers were there once, over restarts: a container that never
// was is waited for, one that is gone is unplugged.
//
// Thread-safety: safe for concurrent use.
type Past struct {
	db *bbolt.DB

	mu     sync.Mutex
	owners map[string]bool
}

var pastBucket = []byte("seen")

// OpenPast reads what db remembers, which stays the caller's.
func OpenPast(db *bbolt.DB) (*Past, error) {
	p := &Past{db: db, owners: map[string]bool{}}
	err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(pastBucket)
		if err != nil {
			return err
		}
		return b.ForEach(func(k, _ []byte) error {
			p.owners[string(k)] = true
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

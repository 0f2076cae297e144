package plug

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"vswitch/plug/wire"
)

// database is *bbolt.DB.
type database interface {
	Update(func(*bbolt.Tx) error) error
	View(func(*bbolt.Tx) error) error
}

// Past remembers over restarts which containers were there once, and since which boot of the
// machine not (one that never was is waited for, one that is gone is unplugged), and what was
// made for each port (of which what is not wanted any more is taken back).
//
// Thread-safety: safe for concurrent use. What asks never waits for the disk; what changes
// does, so it is not for callers that hold a lock. Lock order: writing, mu.
type Past struct {
	db   database
	boot string // what tells this run of the kernel from others

	writing sync.Mutex // held over a write, which puts on disk what is in memory by then

	mu     sync.Mutex           // guards what follows
	owners map[string]string    // the boot in which each was there last
	specs  map[string]wire.Spec // by port
}

var pastBucket, madeBucket = []byte("seen"), []byte("made")

// seenMark begins the value of a container that was seen; the boot follows.
var seenMark = []byte{1}

// OpenPast reads what db remembers, which stays the caller's. boot tells this run of the
// kernel from others, as /proc/sys/kernel/random/boot_id does.
func OpenPast(db database, boot string) (*Past, error) {
	p := &Past{db: db, boot: boot, owners: map[string]string{}, specs: map[string]wire.Spec{}}
	err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(pastBucket)
		if err != nil {
			return err
		}
		if err := b.ForEach(func(k, v []byte) error {
			p.owners[string(k)] = string(bytes.TrimPrefix(v, seenMark))
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

// seen says whether a container was there once, and whether since the machine was booted.
func (p *Past) seen(owner string) (once, sinceBoot bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	boot, once := p.owners[owner]
	return once, once && boot == p.boot
}

// see and forget remember as far as the disk lets them: what is lost is that a plug
// waits instead of going.
func (p *Past) see(owner string) {
	p.mu.Lock()
	boot, known := p.owners[owner]
	p.owners[owner] = p.boot
	p.mu.Unlock()
	if !known || boot != p.boot {
		p.keep(pastBucket, owner)
	}
}

func (p *Past) forget(owner string) {
	p.mu.Lock()
	_, known := p.owners[owner]
	delete(p.owners, owner)
	p.mu.Unlock()
	if known {
		p.keep(pastBucket, owner)
	}
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
	was, known := p.specs[port]
	p.specs[port] = s
	p.mu.Unlock()
	if !known || !reflect.DeepEqual(was, s) {
		p.keep(madeBucket, port)
	}
}

func (p *Past) unmake(port string) {
	p.mu.Lock()
	_, known := p.specs[port]
	delete(p.specs, port)
	p.mu.Unlock()
	if known {
		p.keep(madeBucket, port)
	}
}

// keep puts on disk what is in memory of a key now. Of two that change it at once, the
// later to come here finds what both did: disk and memory end the same.
func (p *Past) keep(bucket []byte, key string) {
	p.writing.Lock()
	defer p.writing.Unlock()
	value := p.value(bucket, key)
	_ = p.db.Update(func(tx *bbolt.Tx) error {
		if value == nil {
			return tx.Bucket(bucket).Delete([]byte(key))
		}
		return tx.Bucket(bucket).Put([]byte(key), value)
	})
}

// Dump makes what is in memory all that there is in tx, as OpenPast reads it.
func (p *Past) Dump(tx *bbolt.Tx) error {
	p.mu.Lock()
	keys := map[string][]string{string(pastBucket): slices.Collect(maps.Keys(p.owners)), string(madeBucket): slices.Collect(maps.Keys(p.specs))}
	p.mu.Unlock()
	for name, list := range keys {
		bucket := []byte(name)
		if err := tx.DeleteBucket(bucket); err != nil && !errors.Is(err, berrors.ErrBucketNotFound) {
			return err
		}
		b, err := tx.CreateBucket(bucket)
		if err != nil {
			return err
		}
		for _, key := range list {
			if value := p.value(bucket, key); value != nil {
				if err := b.Put([]byte(key), value); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Rewrite is Dump into the file that there is: what was changed while there was none is in it.
func (p *Past) Rewrite() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	return p.db.Update(p.Dump)
}

// value is what is to be on disk of a key; nil is nothing.
func (p *Past) value(bucket []byte, key string) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Equal(bucket, pastBucket) {
		if boot, ok := p.owners[key]; ok {
			return append(bytes.Clone(seenMark), boot...)
		}
		return nil
	}
	s, ok := p.specs[key]
	if !ok {
		return nil
	}
	text, _ := json.Marshal(s) // addresses and names only: cannot fail
	return text
}

// Prune forgets the containers that are not among owners, and what was made for ports that
// are not among ports; and on disk whatever else could not be read, or not be deleted when
// it was to go.
func (p *Past) Prune(owners, ports map[string]bool) {
	p.writing.Lock()
	defer p.writing.Unlock()
	p.mu.Lock()
	maps.DeleteFunc(p.owners, func(owner, _ string) bool { return !owners[owner] })
	maps.DeleteFunc(p.specs, func(port string, _ wire.Spec) bool { return !ports[port] })
	p.mu.Unlock()
	type entry struct{ bucket, key []byte }
	var old []entry
	_ = p.db.View(func(tx *bbolt.Tx) error {
		for _, bucket := range [][]byte{pastBucket, madeBucket} {
			_ = tx.Bucket(bucket).ForEach(func(k, _ []byte) error {
				if p.value(bucket, string(k)) == nil {
					old = append(old, entry{bucket, bytes.Clone(k)})
				}
				return nil
			})
		}
		return nil
	})
	if len(old) == 0 {
		return
	}
	_ = p.db.Update(func(tx *bbolt.Tx) error {
		for _, e := range old {
			// Somebody may have put it back in memory: he writes it after us.
			if err := tx.Bucket(e.bucket).Delete(e.key); err != nil {
				return err
			}
		}
		return nil
	})
}

// Package held is what runtimes asked the switch for by themselves: Docker's networks and
// endpoints, CNI's attachments. It is kept on disk, apart from the operator's document: a
// machine that starts a hundred containers an hour shall not push his changes out of the
// history, and what Docker wants is for Docker to say.
//
// Its one idea: an item is a piece of a document. Expand puts all pieces into the operator's
// document, and everything that comes after sees one document.
package held

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
)

// Item is something that a runtime asked for.
type Item struct {
	Owner   string          `json:"owner"` // docker, cni
	Key     string          `json:"key"`   // unique among the owner's
	Bridge  string          `json:"bridge"`
	Makes   bool            `json:"makes,omitempty"`   // the bridge is made for the item, and goes with it
	Options config.Options  `json:"options,omitempty"` // of that bridge
	Ports   []config.Port   `json:"ports,omitempty"`   // of Bridge
	Data    json.RawMessage `json:"data,omitempty"`    // the owner's own
	Since   time.Time       `json:"since"`
}

// UnmarshalJSON reads an item as it is written. A port writes itself as a document has it,
// its options among its other fields, and does not read itself.
func (i *Item) UnmarshalJSON(text []byte) error {
	type plain Item
	v := struct {
		*plain
		Ports []struct {
			Name, Type string
			Options    config.Options
		} `json:"ports"`
	}{plain: (*plain)(i)}
	if err := json.Unmarshal(text, &v); err != nil {
		return err
	}
	i.Ports = nil
	for _, p := range v.Ports {
		i.Ports = append(i.Ports, config.Port{Name: p.Name, Type: p.Type, Options: p.Options})
	}
	return nil
}

// MarshalJSON is the other way of UnmarshalJSON.
func (i Item) MarshalJSON() ([]byte, error) {
	type plain Item
	type port struct {
		Name    string         `json:"name"`
		Type    string         `json:"type"`
		Options config.Options `json:"options"`
	}
	v := struct {
		plain
		Ports []port `json:"ports,omitempty"`
	}{plain: plain(i)}
	for _, p := range i.Ports {
		v.Ports = append(v.Ports, port{p.Name, p.Type, p.Options})
	}
	return json.Marshal(v)
}

// Store holds the items.
//
// Thread-safety: safe for concurrent use.
type Store struct {
	db      *bbolt.DB
	damaged []string // since Open

	mu    sync.Mutex // guards items; held over a write
	items map[id]Item
}

type id struct{ owner, key string }

var bucket = []byte("held")

// Open reads the items of db, which stays the caller's. Those that cannot be read are in
// Damaged, and stay on disk.
func Open(db *bbolt.DB) (*Store, error) {
	s := &Store{db: db, items: map[id]Item{}}
	err := db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			i, err := read(k, v)
			if err != nil {
				s.damaged = append(s.damaged, fmt.Sprintf("item %q is damaged: %v", k, err))
				return nil
			}
			s.items[id{i.Owner, i.Key}] = i
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("read what runtimes asked for: %w", err)
	}
	return s, nil
}

// Damaged says which items could not be read by Open.
func (s *Store) Damaged() []string { return slices.Clone(s.damaged) }

// read reads an item that says itself where it is kept: another could not be deleted.
func read(k, v []byte) (i Item, err error) {
	if err := json.Unmarshal(v, &i); err != nil {
		return Item{}, err
	}
	if !bytes.Equal(k, id{i.Owner, i.Key}.bytes()) {
		return Item{}, errors.New("it is kept as another's")
	}
	return i, nil
}

func (i id) bytes() []byte { return []byte(i.owner + "\x00" + i.key) }

// Change puts items and deletes keys of one owner, all or none. It is on disk when Change
// returns nil.
func (s *Store) Change(put []Item, owner string, del []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		for _, key := range del {
			if err := b.Delete(id{owner, key}.bytes()); err != nil {
				return err
			}
		}
		for _, i := range put {
			text, err := json.Marshal(i)
			if err != nil {
				return err
			}
			if err := b.Put(id{i.Owner, i.Key}.bytes(), text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep what %s asked for: %w", cmp.Or(owner, "a runtime"), err)
	}
	for _, key := range del {
		delete(s.items, id{owner, key})
	}
	for _, i := range put {
		s.items[id{i.Owner, i.Key}] = i
	}
	return nil
}

// Get finds an item.
func (s *Store) Get(owner, key string) (Item, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.items[id{owner, key}]
	return i, ok
}

// List lists an owner's items by key; owner "" is all, by owner and key. They are shared: do
// not change them.
func (s *Store) List(owner string) []Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Item
	for _, i := range slices.SortedFunc(maps.Values(s.items), func(a, b Item) int {
		return cmp.Or(cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Key, b.Key))
	}) {
		if owner == "" || i.Owner == owner {
			all = append(all, i)
		}
	}
	return all
}

// Misfit is a piece of an item that the document has no place for.
type Misfit struct {
	Owner, Key string
	Why        string
}

// Expand returns d with the items' bridges and ports. d is not changed, but is shared where
// nothing was added; it must be valid. What does not fit (its bridge is gone, its name is
// taken by the operator) is left out and told.
func Expand(d config.Document, items []Item) (config.Document, []Misfit) {
	if len(items) == 0 {
		return d, nil
	}
	out := config.Document{Bridges: slices.Clone(d.Bridges), Meshes: d.Meshes}
	var misfits []Misfit
	used := map[string]bool{}
	for _, b := range d.Bridges {
		used[b.Name] = true
		for _, p := range b.Ports {
			used[p.Name] = true
		}
	}
	miss := func(i Item, format string, args ...any) {
		misfits = append(misfits, Misfit{i.Owner, i.Key, fmt.Sprintf(format, args...)})
	}
	for _, i := range items {
		if !i.Makes {
			continue
		}
		if used[i.Bridge] {
			miss(i, "the name %s is taken", i.Bridge)
			continue
		}
		used[i.Bridge] = true
		out.Bridges = append(out.Bridges, config.Bridge{Name: i.Bridge, Options: i.Options})
	}
	slices.SortFunc(out.Bridges, func(a, b config.Bridge) int { return cmp.Compare(a.Name, b.Name) })
	grown := map[string]bool{}
	for _, i := range items {
		if len(i.Ports) == 0 {
			continue
		}
		b := out.Bridge(i.Bridge)
		if b == nil {
			miss(i, "bridge %s does not exist", i.Bridge)
			continue
		}
		if !grown[b.Name] {
			grown[b.Name] = true
			b.Ports = slices.Clone(b.Ports)
		}
		for _, p := range i.Ports {
			if used[p.Name] {
				miss(i, "the name %s is taken", p.Name)
				continue
			}
			used[p.Name] = true
			b.Ports = append(b.Ports, p)
		}
	}
	for name := range grown {
		b := out.Bridge(name)
		slices.SortFunc(b.Ports, func(x, y config.Port) int { return cmp.Compare(x.Name, y.Name) })
	}
	return out, misfits
}

// Equal says whether two items ask for the same thing. Since is not looked at.
func (i Item) Equal(o Item) bool {
	return i.Owner == o.Owner && i.Key == o.Key && i.Bridge == o.Bridge && i.Makes == o.Makes && maps.Equal(i.Options, o.Options) &&
		slices.EqualFunc(i.Ports, o.Ports, config.Port.Equal) && bytes.Equal(i.Data, o.Data)
}

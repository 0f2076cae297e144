// Package store keeps the versions of the desired document through restarts,
// power cuts and full disks. It is not for state: nothing that is learned or
// counted comes here, and it never judges a document beyond that it is valid.
//
// Its one idea is that the document is there twice, in vswitch.db (bbolt: every
// version kept, the truth) and in desired.yaml (the current one, which a person
// can read and which brings the document back when the database is damaged).
//
// A Put goes: desired.yaml.tmp written and synced, the database committed, the
// rename. So a full disk shows before anything has changed, and after a crash
// the database is never behind desired.yaml unless it lost something. The
// database is proven sound, byte by byte and without mapping it, before bbolt
// opens it (verify.go), since bbolt trusts what it maps.
package store

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
)

// The files of a state directory.
const (
	dbName   = "vswitch.db"
	yamlName = "desired.yaml"
	lockName = "vswitchd.lock"
)

// DefaultKeep is how many versions are kept when Options do not say.
const DefaultKeep = 200

const maxComment = 4096 // bytes; the rest is cut off

// ErrReadOnly is what Put and ClearPending wrap when the directory could not be
// written at Open.
var ErrReadOnly = errors.New("store is read-only")

// ErrNoVersion is what Get wraps for a version that is not, or no longer, kept.
var ErrNoVersion = errors.New("no such version")

// InUseError says that another daemon has the state directory.
type InUseError struct {
	Dir string
	PID int // 0 when it could not be read
}

func (e *InUseError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("state directory %s is in use by another program", e.Dir)
	}
	return fmt.Sprintf("state directory %s is in use by vswitchd (pid %d)", e.Dir, e.PID)
}

// Options belong to Open.
type Options struct {
	Keep int // versions; 0 is DefaultKeep
}

// Entry is one line of the history.
type Entry struct {
	Version uint64    `json:"version"`
	Time    time.Time `json:"time"`
	Comment string    `json:"comment,omitempty"`
}

// Pending says that the current version goes back to Previous at Deadline unless
// it is confirmed before.
type Pending struct {
	Version  uint64    `json:"version"`
	Previous uint64    `json:"previous"`
	Deadline time.Time `json:"deadline"`
}

// PutOptions belong to Put.
type PutOptions struct {
	// Deadline makes the new version provisional: Pending tells of it until the
	// next Put or ClearPending, also after a crash. When the current version is
	// provisional itself, Previous stays what it was. The zero time is for good.
	Deadline time.Time
}

// Store is one state directory.
//
// Thread-safety: all methods may be called at once. Reads of the current
// document and the history take mu for reading and never touch the disk; Put and
// ClearPending hold writing throughout, and mu only to publish what is durable.
// Lock order: writing, then mu.
type Store struct {
	dir      string
	keep     int
	lock     *os.File // nil when a read-only directory has no lock file
	readOnly error    // why, nil when it is not

	writing sync.Mutex
	db      *bbolt.DB // nil: not to be used any more; broken says why
	broken  error

	mu       sync.RWMutex
	version  uint64
	doc      config.Document
	pending  *Pending
	history  []Entry // oldest first
	warnings []string
}

// Close gives the directory up. The store must not be used afterwards.
func (s *Store) Close() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	var err error
	if s.db != nil {
		err = guard(s.db.Close)
		s.db, s.broken = nil, errors.New("store is closed")
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
		s.lock = nil
	}
	return err
}

// Current is the document that is desired and its version; 0 is the empty
// document of a new directory. The document is the caller's.
func (s *Store) Current() (uint64, config.Document) {
	version, doc := s.View()
	return version, doc.Clone()
}

// View is Current without a copy: nobody may change the document. A daemon with
// thousands of ports keeps it once.
func (s *Store) View() (uint64, config.Document) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.version, s.doc
}

// History lists the versions that are kept, newest first.
func (s *Store) History() []Entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := slices.Clone(s.history)
	slices.Reverse(list)
	return list
}

// Pending tells whether the current version is provisional.
func (s *Store) Pending() (Pending, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.pending == nil {
		return Pending{}, false
	}
	return *s.pending, true
}

// ReadOnly says whether the directory could not be written at Open.
func (s *Store) ReadOnly() bool { return s.readOnly != nil }

// Warnings are what an operator should know: that the store is read-only, that a
// damaged database was replaced. Each is one sentence.
func (s *Store) Warnings() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.warnings)
}

func (s *Store) warn(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w := fmt.Sprintf(format, args...); !slices.Contains(s.warnings, w) {
		s.warnings = append(s.warnings, w)
	}
}

// Get reads one version from the disk. It wraps ErrNoVersion.
func (s *Store) Get(version uint64) (config.Document, error) {
	s.mu.RLock()
	if version == s.version {
		defer s.mu.RUnlock()
		return s.doc.Clone(), nil
	}
	_, kept := s.find(version)
	s.mu.RUnlock()
	if !kept {
		return config.Document{}, fmt.Errorf("read version %d: %w", version, ErrNoVersion)
	}

	s.writing.Lock() // a damaged page found here ends the use of the database
	defer s.writing.Unlock()
	if s.db == nil {
		return config.Document{}, fmt.Errorf("read version %d: %w", version, s.why())
	}
	var doc config.Document
	err := guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) (err error) {
			doc, err = readDocument(tx, version)
			return err
		})
	})
	if err != nil {
		s.distrust(err)
		return config.Document{}, fmt.Errorf("read version %d from %s: %w", version, s.path(dbName), err)
	}
	return doc, nil
}

// find is the place of a version in the history.
func (s *Store) find(version uint64) (int, bool) {
	return slices.BinarySearchFunc(s.history, version, func(e Entry, v uint64) int {
		switch {
		case e.Version < v:
			return -1
		case e.Version > v:
			return 1
		}
		return 0
	})
}

// Put makes doc the current document, as a new version, and returns when it is
// on the disk. On an error nothing has changed, and a later Put may succeed. The
// document must be valid, and is the store's from now on: nobody may change it, see
// View. comment is what history shows.
func (s *Store) Put(doc config.Document, comment string, o PutOptions) (uint64, error) {
	fail := func(err error) (uint64, error) {
		return 0, fmt.Errorf("store the configuration in %s: %w", s.dir, err)
	}
	if err := doc.Validate(); err != nil {
		return fail(err)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.writable(); err != nil {
		return fail(err)
	}

	s.mu.RLock()
	next := Entry{Version: s.version + 1, Time: time.Now().UTC().Truncate(time.Millisecond), Comment: cutComment(comment)}
	state := state{Format: format, Current: next.Version}
	if !o.Deadline.IsZero() {
		state.Pending = &Pending{Version: next.Version, Previous: s.version, Deadline: o.Deadline.UTC()}
		if s.pending != nil {
			state.Pending.Previous = s.pending.Previous
		}
	}
	history := append(slices.Clone(s.history), next)
	s.mu.RUnlock()
	history, drop := prune(history, s.keep, state.Pending)

	text, err := desiredYAML(doc, next)
	if err != nil {
		return fail(err)
	}
	if err := writeSynced(s.path(yamlName+".tmp"), text); err != nil {
		return fail(err)
	}
	err = guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return writeVersion(tx, doc, next, state, drop) })
	})
	if err != nil {
		os.Remove(s.path(yamlName + ".tmp"))
		s.distrust(err)
		return fail(fmt.Errorf("write %s: %w", s.path(dbName), err))
	}
	// The version is durable: what fails from here on is no refusal.
	if err := renameSynced(s.path(yamlName+".tmp"), s.path(yamlName)); err != nil {
		s.warn("%s is behind the configuration: %v", s.path(yamlName), err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.doc, s.pending, s.history = next.Version, doc, state.Pending, history
	return next.Version, nil
}

// ClearPending confirms the current version: it stays. It does nothing when the
// version is not provisional.
func (s *Store) ClearPending() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	if _, waits := s.Pending(); !waits {
		return nil
	}
	fail := func(err error) error { return fmt.Errorf("confirm the configuration in %s: %w", s.dir, err) }
	if err := s.writable(); err != nil {
		return fail(err)
	}
	version, _ := s.Current()
	err := guard(func() error {
		return s.db.Update(func(tx *bbolt.Tx) error { return writeState(tx, state{Format: format, Current: version}) })
	})
	if err != nil {
		s.distrust(err)
		return fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = nil
	return nil
}

// writable says why the store cannot be written. The caller holds writing.
func (s *Store) writable() error {
	if s.readOnly != nil {
		return fmt.Errorf("%w: %w", ErrReadOnly, s.readOnly)
	}
	if s.db == nil {
		return s.why()
	}
	return nil
}

func (s *Store) why() error {
	if s.broken != nil {
		return s.broken
	}
	return errors.New("there is no database")
}

// distrust gives the database up after a fault in it: what bbolt holds in memory
// is then in no known state. The current document lives on in memory and in
// desired.yaml; the next Open sorts it out. The caller holds writing.
func (s *Store) distrust(err error) {
	var fault *faultError
	if !errors.As(err, &fault) {
		return
	}
	// Not closed: that could fault again. The mapping goes with the process.
	s.db = nil
	s.broken = fmt.Errorf("%s was found damaged while in use: restart vswitchd to recover it: %w", s.path(dbName), err)
	s.warn("%v", s.broken)
}

func (s *Store) path(name string) string { return filepath.Join(s.dir, name) }

// prune leaves keep versions, and the one a provisional version goes back to.
func prune(history []Entry, keep int, p *Pending) (kept []Entry, drop []uint64) {
	for i, e := range history {
		if i < len(history)-keep && (p == nil || e.Version != p.Previous) {
			drop = append(drop, e.Version)
		} else {
			kept = append(kept, e)
		}
	}
	return kept, drop
}

// cutComment makes a comment one bounded line of text.
func cutComment(c string) string {
	c = strings.Join(strings.Fields(strings.ToValidUTF8(c, "?")), " ")
	if len(c) <= maxComment {
		return c
	}
	c = c[:maxComment]
	for !utf8.ValidString(c) {
		c = c[:len(c)-1]
	}
	return c
}

// lastVersion guards the count: it is never reached, and never wraps.
const lastVersion = math.MaxInt64

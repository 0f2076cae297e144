package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
)

// Open opens a state directory, makes it when it is not there (mode 0700), and
// brings the current document back. It never waits: a directory that is in use
// is an *InUseError at once.
//
// A directory that cannot be written opens read-only when a configuration can be
// read from it. A damaged database is moved aside and made anew from
// desired.yaml; both are told by Warnings. When neither holds a configuration
// that can be used, and they are not simply empty, Open refuses.
func Open(dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, keep: o.Keep}
	if s.keep <= 0 {
		s.keep = DefaultKeep
	}
	if err := s.open(); err != nil {
		s.Close()
		var used *InUseError
		if errors.As(err, &used) {
			return nil, err
		}
		return nil, fmt.Errorf("open state directory %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) open() error {
	err := os.MkdirAll(s.dir, 0o700)
	if err != nil && !isUnwritable(err) {
		return err
	}
	if err := s.acquire(); err != nil {
		return err
	}
	loaded, damage, err := s.load()
	switch {
	case err != nil:
		return err
	case loaded == nil:
		err = s.recover(damage)
	default:
		err = s.adopt(loaded)
	}
	if err != nil {
		return err
	}
	if s.readOnly != nil {
		s.warn("the store in %s is read-only, changes will be refused: %v", s.dir, s.readOnly)
	}
	return nil
}

// isUnwritable is for errors that leave reading possible.
func isUnwritable(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// acquire takes the lock, or finds that the directory cannot be written.
func (s *Store) acquire() error {
	path := s.path(lockName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil && isUnwritable(err) {
		s.readOnly = err
		if f, err = os.Open(path); err != nil {
			return nil // nobody can have it: a writer would have made the file
		}
	}
	if err != nil {
		return err
	}
	// flock(2) goes with the open file: the kernel lets it go when we die.
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		defer f.Close()
		if err != unix.EWOULDBLOCK {
			return fmt.Errorf("lock %s: %w", path, err)
		}
		text, _ := io.ReadAll(io.LimitReader(f, 32))
		pid, _ := strconv.Atoi(strings.TrimSpace(string(text)))
		return &InUseError{Dir: s.dir, PID: pid}
	}
	s.lock = f
	if s.readOnly == nil {
		// The number only makes a message better: a full disk is no reason to stop.
		if f.Truncate(0) == nil {
			f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
		}
	}
	return nil
}

// contents is what a database holds.
type contents struct {
	state   state
	doc     config.Document
	history []Entry
}

// load opens the database. Without one, or with a damaged one, it returns no
// contents; damage then says what is wrong, nil when the file is missing or empty.
func (s *Store) load() (c *contents, damage, err error) {
	path := s.path(dbName)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Mode().IsRegular() && info.Size() == 0 {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if err := verify(path); errors.Is(err, errDamaged) {
		return nil, err, nil
	} else if err != nil {
		return nil, nil, err
	}
	if err := s.openDB(); errors.Is(err, errDamaged) {
		return nil, err, nil
	} else if err != nil {
		return nil, nil, err
	}
	c = &contents{}
	err = guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) (err error) {
			if c.state, err = readState(tx); err != nil {
				return err
			}
			if c.history, err = readHistory(tx); err != nil || c.state.Current == 0 {
				return err
			}
			if n := len(c.history); n == 0 || c.history[n-1].Version != c.state.Current {
				return fmt.Errorf("the history is %w: it does not end with version %d", errDamaged, c.state.Current)
			}
			if c.doc, err = readDocument(tx, c.state.Current); err != nil {
				return fmt.Errorf("version %d: %w", c.state.Current, err)
			}
			return nil
		})
	})
	if err == nil {
		return c, nil, nil
	}
	s.closeDB(err)
	if errors.Is(err, errDamaged) {
		return nil, fmt.Errorf("%s: %w", path, err), nil
	}
	return nil, nil, fmt.Errorf("%s: %w", path, err)
}

// openDB has bbolt open a file that verify has found sound.
func (s *Store) openDB() error {
	path := s.path(dbName)
	if s.readOnly == nil {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err == nil {
			f.Close()
		} else if isUnwritable(err) {
			s.readOnly = err
		} else {
			return err
		}
	}
	return guard(func() error {
		// The lock file keeps other daemons out; bbolt's own lock, other tools.
		db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: s.readOnly != nil, Timeout: 50 * time.Millisecond})
		switch {
		case errors.Is(err, berrors.ErrTimeout):
			return &InUseError{Dir: s.dir}
		case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
			return fmt.Errorf("%s is %w: %w", path, errDamaged, err)
		case err != nil:
			return err
		}
		s.db = db
		return nil
	})
}

// closeDB closes the database, unless a fault has left it in no known state.
func (s *Store) closeDB(cause error) {
	var fault *faultError
	if s.db != nil && !errors.As(cause, &fault) {
		guard(s.db.Close)
	}
	s.db = nil
}

// adopt takes what a sound database holds. When desired.yaml is newer the
// database has lost something: it is the previous meta page that was sound.
func (s *Store) adopt(c *contents) error {
	d, err := readDesired(s.path(yamlName))
	if err == nil && !d.changed && d.entry.Version > c.state.Current {
		s.closeDB(nil)
		return s.recover(fmt.Errorf("%s is %w: it ends at version %d, and %s is at version %d",
			s.path(dbName), errDamaged, c.state.Current, yamlName, d.entry.Version))
	}
	s.version, s.doc, s.history, s.pending = c.state.Current, c.doc, c.history, c.state.Pending
	if p := s.pending; p != nil {
		if _, kept := s.find(p.Previous); p.Version != s.version || !kept && p.Previous != 0 {
			s.pending = nil
			s.warn("version %d was provisional, and version %d to go back to is not there: it stays", p.Version, p.Previous)
		}
	}
	if s.readOnly != nil || s.version == 0 {
		return nil
	}
	os.Remove(s.path(yamlName + ".tmp"))
	if err == nil && !d.changed && d.entry.Version == s.version {
		return nil
	}
	// A crash between commit and rename, or somebody's hand.
	text, err := desiredYAML(s.doc, s.history[len(s.history)-1])
	if err == nil {
		err = writeSynced(s.path(yamlName+".tmp"), text)
	}
	if err == nil {
		err = renameSynced(s.path(yamlName+".tmp"), s.path(yamlName))
	}
	if err != nil {
		s.warn("%s is behind the configuration: %v", s.path(yamlName), err)
	}
	return nil
}

// recover brings the document back from desired.yaml when the database is
// missing, empty or damaged.
func (s *Store) recover(damage error) error {
	d, err := readDesired(s.path(yamlName))
	missing := errors.Is(err, os.ErrNotExist)
	switch {
	case missing && damage == nil && s.readOnly == nil:
		return s.create(nil) // a new directory
	case missing && damage == nil:
		return fmt.Errorf("it holds no configuration and cannot be written: %w", s.readOnly)
	case missing:
		return fmt.Errorf("%w; there is no %s to recover from (move %s away to begin with an empty configuration)", damage, yamlName, dbName)
	case err != nil && damage != nil:
		return fmt.Errorf("%w; and %w", damage, err)
	case err != nil:
		return fmt.Errorf("there is no %s; and %w", dbName, err)
	}
	if d.entry.Version == 0 {
		d.entry.Version = 1
	}
	if d.entry.Time.IsZero() {
		d.entry.Time = time.Now().UTC().Truncate(time.Millisecond)
	}
	d.entry.Comment = "recovered from " + yamlName
	if damage == nil {
		damage = fmt.Errorf("there was no %s", dbName)
	}
	s.version, s.doc, s.history = d.entry.Version, d.doc, []Entry{d.entry}
	byHand := ""
	if d.changed {
		byHand = ", which was changed by hand"
	}
	if s.readOnly != nil {
		s.warn("%v; version %d was read from %s%s", damage, s.version, yamlName, byHand)
		return nil
	}
	aside := ""
	if there, err := exists(s.path(dbName)); err != nil {
		return err
	} else if there {
		aside = s.aside()
		if err := renameSynced(s.path(dbName), aside); err != nil {
			return fmt.Errorf("%w; it could not be moved aside: %w", damage, err)
		}
		aside = "; the database was moved to " + filepath.Base(aside)
	}
	s.warn("%v; version %d was recovered from %s%s, its history is lost%s", damage, s.version, yamlName, byHand, aside)
	return s.create(&d)
}

// aside is a name for a damaged database that is not taken.
func (s *Store) aside() string {
	base := s.path(dbName + ".corrupt-" + time.Now().UTC().Format("20060102T150405Z"))
	for i := 0; ; i++ {
		name := base
		if i > 0 {
			name += "-" + strconv.Itoa(i)
		}
		if there, err := exists(name); err != nil || !there {
			return name
		}
	}
}

// create makes a database, with a recovered version or empty. It is made under
// another name, so that a crash or a full disk leaves none that is half made.
func (s *Store) create(d *desired) error {
	path, made := s.path(dbName), s.path(dbName+".new")
	if err := os.Remove(made); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := bbolt.Open(made, 0o600, &bbolt.Options{Timeout: 50 * time.Millisecond})
	if err == nil {
		err = db.Update(func(tx *bbolt.Tx) error {
			if d == nil {
				return writeState(tx, state{Format: format})
			}
			return writeVersion(tx, d.doc, d.entry, state{Format: format, Current: d.entry.Version}, nil)
		})
		err = errors.Join(err, db.Close())
	}
	if err == nil {
		err = renameSynced(made, path)
	}
	if err != nil {
		os.Remove(made)
		return fmt.Errorf("create %s: %w", path, err)
	}
	return s.openDB()
}

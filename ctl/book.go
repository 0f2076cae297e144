package ctl

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"vswitch/plug"
	"vswitch/plug/held"
	"vswitch/plug/ipam"
)

// plugBook is what is kept of containers, in one file apart from the document: who has which
// address, who was there once, what runtimes asked for.
//
// Thread-safety: its parts have their own; remove is called once, after db is closed.
type plugBook struct {
	db     *bookFile
	past   *plug.Past
	leases *ipam.Store
	held   *heldItems
	remove func() // takes db's file away where it holds for this run only
}

// errBookDamaged says that a file is not what was written.
var errBookDamaged = errors.New("the file is damaged")

// openPlugBook opens the file of leases and attachments. One that is damaged is put aside:
// what is in it can be found again, but for who had which address. On a disk that cannot
// be written, a copy in runDir serves for this run: the switch starts all the same. What
// could not be read is told.
func openPlugBook(path, runDir string, log *slog.Logger) (*plugBook, error) {
	l, err := readBook(path)
	if errors.Is(err, errBookDamaged) {
		aside, moved := putAside(path)
		if moved == nil {
			log.Error("the file of leases and attachments cannot be read; it is put aside, and who had which address is forgotten", "file", path, "aside", aside, "err", err)
			l, err = readBook(path)
		} else {
			err = errors.Join(err, moved)
		}
	}
	if err != nil {
		log.Warn("leases and attachments cannot be kept: they hold for this run", "file", path, "err", err)
		if l, err = copyBook(path, filepath.Join(runDir, "plugs.db"), log); err != nil {
			return nil, err
		}
	}
	for _, text := range l.leases.Damaged() {
		log.Warn("a lease cannot be read; its address is not given out", "lease", text)
	}
	for _, text := range l.held.Damaged() {
		log.Warn("what a runtime asked for cannot be read; it is left out", "item", text)
	}
	return l, nil
}

// putAside renames a file to a name that nobody has: path.damaged, path.damaged.1 …
func putAside(path string) (aside string, err error) {
	aside = path + ".damaged"
	for n := 1; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, os.ErrNotExist) {
			return aside, os.Rename(path, aside)
		} else if err != nil {
			return aside, err
		}
		aside = path + ".damaged." + strconv.Itoa(n)
	}
}

// copyBook opens a copy of a file, as far as that can be read, for this run.
func copyBook(path, copied string, log *slog.Logger) (*plugBook, error) {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if err := os.Remove(copied); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	if len(old) > 0 {
		if err := os.WriteFile(copied, old, 0o600); err != nil {
			os.Remove(copied)
			return nil, fmt.Errorf("copy %s: %w", path, err)
		}
	}
	l, err := readBook(copied)
	if errors.Is(err, errBookDamaged) && len(old) > 0 {
		log.Error("the file of leases and attachments cannot be read, and stays where it is; who had which address is not known", "file", path, "err", err)
		if err := os.Remove(copied); err != nil {
			return nil, err
		}
		l, err = readBook(copied)
	}
	if err != nil {
		os.Remove(copied)
		return nil, fmt.Errorf("open %s: %w", copied, err)
	}
	l.remove = func() { os.Remove(copied) }
	return l, nil
}

// readBook opens a file and reads all that is in it. The error is errBookDamaged unless
// it is the kernel's or the lock's.
//
// bbolt believes the pages of its file: what is wrong in them makes it panic, or read what
// is not mapped. Its locks are then held for good, so the file alone is unlocked, for other
// openers of the same file, and closed. Its map stays, once.
func readBook(path string) (l *plugBook, err error) {
	var file *os.File
	faults := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(faults)
	defer func() {
		if r := recover(); r != nil {
			if file != nil {
				unlock(file)
			}
			l, err = nil, fmt.Errorf("read %s: %w: %v", path, errBookDamaged, r)
		}
	}()
	open := func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	l = &plugBook{remove: func() {}}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, OpenFile: open})
	if err != nil {
		return nil, notRead(path, err)
	}
	l.db = newBookFile(path, db, file)
	var items *held.Store
	if err = walkBook(db); err == nil {
		l.past, err = plug.OpenPast(l.db, bootID())
	}
	if err == nil {
		l.leases, err = ipam.Open(l.db)
	}
	if err == nil {
		items, err = held.Open(db)
	}
	switch {
	case l.db.damage() != nil: // bbolt's locks may be held for good
		return nil, err
	case err != nil:
		db.Close()
		return nil, notRead(path, err)
	}
	l.held = newHeldItems(l.db, items)
	return l, nil
}

// notRead tells what is wrong with the disk from what is wrong in the file. bbolt does not
// wrap the error of a file that cannot grow.
func notRead(path string, err error) error {
	var disk syscall.Errno
	if errors.As(err, &disk) || errors.Is(err, berrors.ErrTimeout) || strings.HasPrefix(err.Error(), "file resize error") {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return fmt.Errorf("open %s: %w: %w", path, errBookDamaged, err)
}

// walkBook reads every page that holds anything, and judges whether the file can be
// written: a page that counts as free while it is in use would be lost at some later write,
// and bbolt would panic there.
func walkBook(db *bbolt.DB) error {
	return db.View(func(tx *bbolt.Tx) error {
		// First by this goroutine, in which a fault is a panic: Check has its own.
		nothing := func(_, _ []byte) error { return nil }
		if err := tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return b.ForEach(nothing) }); err != nil {
			return err
		}
		if err := walkPages(tx); err != nil {
			return err
		}
		var first error
		for err := range tx.Check() { // to its end
			// A page that is neither used nor free is lost space, and harmless.
			if first == nil && !strings.HasSuffix(err.Error(), "unreachable unfreed") {
				first = err
			}
		}
		return first
	})
}

// walkPages reads the header of every page. Check counts, in memory, as many pages as one says
// that it has, a number of any size; and what it alone reads would end the process by a fault.
func walkPages(tx *bbolt.Tx) error {
	for id := 0; ; id++ {
		p, err := tx.Page(id)
		if err != nil || p == nil {
			return err
		}
		if p.Type != "branch" && p.Type != "leaf" && p.Type != "freelist" {
			continue
		}
		id += p.OverflowCount
		if last, err := tx.Page(id); err != nil || last == nil {
			return errors.Join(err, fmt.Errorf("page %d says that %d follow it", p.ID, p.OverflowCount))
		}
	}
}

// unlock closes a file that is mapped: the map keeps the lock that a closed file would lose.
func unlock(file *os.File) {
	_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
	file.Close()
}

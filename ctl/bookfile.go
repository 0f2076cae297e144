package ctl

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"vswitch/plug/held"
)

// bookFile is the open file of a plugBook, which may be damaged while it is open: bbolt
// believes its pages, and panics at what is wrong in them. That ends a transaction with an
// error here, and the file with it. What was in it is in memory, and goes into a new one.
//
// bbolt's own locks may be held for good after a panic, so who comes after it is turned
// away here, and one transaction at a time is in it. Of a file that is given up its map stays.
//
// Thread-safety: safe for concurrent use. Lock order: those of the book's parts, using, mu.
// Who only asks for the warning waits for no disk.
type bookFile struct {
	path  string
	broke chan struct{} // holds one when the file is damaged

	using sync.Mutex // held over a transaction

	mu    sync.Mutex // guards what follows
	db    *bbolt.DB
	file  *os.File
	wrong error  // the file is damaged; nil: it serves
	told  string // of the last damage, for show
}

func newBookFile(path string, db *bbolt.DB, file *os.File) *bookFile {
	return &bookFile{path: path, db: db, file: file, broke: make(chan struct{}, 1)}
}

// Update and View are bbolt's.
func (b *bookFile) Update(f func(*bbolt.Tx) error) error {
	return b.change(func(db *bbolt.DB) error { return db.Update(f) })
}

func (b *bookFile) View(f func(*bbolt.Tx) error) error {
	return b.with(func(db *bbolt.DB) error { return db.View(f) })
}

// with has f use the file. The error is errBookDamaged where it cannot be used any more.
func (b *bookFile) with(f func(*bbolt.DB) error) (err error) {
	b.using.Lock()
	defer b.using.Unlock()
	b.mu.Lock()
	db, wrong := b.db, b.wrong
	b.mu.Unlock()
	if wrong != nil {
		return wrong
	}
	faults := debug.SetPanicOnFault(true) // of a page that cannot be read
	defer debug.SetPanicOnFault(faults)
	defer func() {
		if r := recover(); r != nil {
			err = b.giveUp(r)
		}
	}()
	return f(db)
}

// change is with for an f that writes. What it would not panic at is looked for before.
func (b *bookFile) change(f func(*bbolt.DB) error) error {
	return b.with(func(db *bbolt.DB) error {
		if err := checkHead(b.file, db.Info().PageSize); err != nil {
			return b.giveUp(err)
		}
		return f(db)
	})
}

// The head of a file of bbolt's (internal/common: page.go, meta.go), in the host's byte
// order: two pages that each hold a meta, of which the younger counts.
//
//	page                               meta
//	 0         8      10     12   16    0      4       8     16     32        40    48    56
//	+---------+------+------+------+   +------+-------+-----+------+---------+-----+-----+---------+
//	| its own | kind | count| more |   |magic |version|     | root |free list|pages|txid |checksum |
//	| number  |      |      | pages|   +------+-------+-----+------+---------+-----+-----+---------+
//	+---------+------+------+------+
const (
	pageHeader = 16
	metaLen    = 64
	metaMagic  = 0xED0CDAED
	freelist   = 0x10      // a kind of page
	noFreelist = 1<<64 - 1 // in a meta
)

// checkHead says what is wrong in the pages that every commit believes: with one meta damaged
// it would go back to the tree before the last, and it frees as many pages as the free list's
// page says that it has, a number of any size.
func checkHead(file *os.File, pageSize int) error {
	native := binary.NativeEndian
	var list, pages, txid uint64
	for i := range 2 {
		b := make([]byte, pageHeader+metaLen)
		if _, err := file.ReadAt(b, int64(i*pageSize)); err != nil {
			return fmt.Errorf("read page %d: %w", i, err)
		}
		m := b[pageHeader:]
		sum := fnv.New64a()
		sum.Write(m[:metaLen-8])
		if native.Uint32(m) != metaMagic || native.Uint64(m[56:]) != sum.Sum64() {
			return fmt.Errorf("page %d is not what was written", i)
		}
		if at := native.Uint64(m[48:]); at >= txid {
			list, pages, txid = native.Uint64(m[32:]), native.Uint64(m[40:]), at
		}
	}
	if list == noFreelist {
		return nil
	}
	b := make([]byte, pageHeader)
	if _, err := file.ReadAt(b, int64(list)*int64(pageSize)); err != nil {
		return fmt.Errorf("read page %d: %w", list, err)
	}
	if native.Uint64(b) != list || native.Uint16(b[8:]) != freelist || list+uint64(native.Uint32(b[12:])) >= pages {
		return fmt.Errorf("page %d is not the list of free pages that was written", list)
	}
	return nil
}

// giveUp notes that the file is damaged, which is not used any more. Called with using held.
func (b *bookFile) giveUp(why any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = fmt.Errorf("use %s: %w: %v", b.path, errBookDamaged, why)
	b.told = fmt.Sprintf("%s was damaged while it was open (%v)", b.path, why)
	unlock(b.file)
	select {
	case b.broke <- struct{}{}:
	default:
	}
	return b.wrong
}

// check reads all of the file. What is wrong in it is damage that no transaction has met yet.
func (b *bookFile) check() {
	_ = b.with(func(db *bbolt.DB) error {
		if err := walkBook(db); err != nil {
			return b.giveUp(err)
		}
		return nil
	})
}

// damage says what is wrong with the file; nil: nothing.
func (b *bookFile) damage() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.wrong
}

// Close closes the file, unless it was given up.
func (b *bookFile) Close() error {
	return b.with(func(db *bbolt.DB) error { return db.Close() })
}

// warning is for show.
func (b *bookFile) warning() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.told == "":
		return ""
	case b.wrong != nil:
		return "leases and attachments: " + b.told + "; nothing can be leased until it is written anew"
	}
	return "leases and attachments: " + b.told + "; it was written anew from memory: look after the disk"
}

// heldItems is a held.Store over a file that may be another one later.
//
// Thread-safety: safe for concurrent use.
type heldItems struct {
	file *bookFile
	now  atomic.Pointer[held.Store]
}

func newHeldItems(file *bookFile, s *held.Store) *heldItems {
	h := &heldItems{file: file}
	h.now.Store(s)
	return h
}

func (h *heldItems) List(owner string) []held.Item { return h.now.Load().List(owner) }
func (h *heldItems) Get(owner, key string) (i held.Item, ok bool) {
	return h.now.Load().Get(owner, key)
}
func (h *heldItems) Damaged() []string { return h.now.Load().Damaged() }

// Change is held.Store's.
func (h *heldItems) Change(put []held.Item, owner string, del []string) error {
	return h.file.change(func(*bbolt.DB) error { return h.now.Load().Change(put, owner, del) })
}

// mendEvery is how often it is tried to write a damaged file anew.
const mendEvery = 2 * time.Second

// mend writes the file anew whenever it was damaged, until ctx ends.
func (l *plugBook) mend(ctx context.Context, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.db.broke:
		}
		log.Error("the file of leases and attachments was damaged; it is written anew from memory", "err", l.db.damage())
		told := "" // a disk may be full for days
		for err := l.rewrite(); err != nil; err = l.rewrite() {
			if err.Error() != told {
				told = err.Error()
				log.Error("the file of leases and attachments cannot be written anew; it is tried again", "err", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(mendEvery):
			}
		}
	}
}

// rewrite makes a new file of what is in memory, and uses it. Nothing changes in leases and
// items meanwhile: their changes are refused as long as the file is damaged.
func (l *plugBook) rewrite() (err error) {
	b := l.db
	next := b.path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	var file *os.File
	open := func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
		file, err = os.OpenFile(name, flag, mode)
		return file, err
	}
	db, err := bbolt.Open(next, 0o600, &bbolt.Options{Timeout: time.Second, OpenFile: open})
	if err != nil {
		os.Remove(next)
		return fmt.Errorf("open %s: %w", next, err)
	}
	defer func() {
		if err != nil {
			db.Close()
			os.Remove(next)
		}
	}()
	err = db.Update(func(tx *bbolt.Tx) error { return errors.Join(l.leases.Dump(tx), l.past.Dump(tx)) })
	if err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	items, err := held.Open(db)
	if err == nil {
		err = items.Change(l.held.List(""), "", nil)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", next, err)
	}
	// The damaged one keeps a name, and there is a file at every moment.
	aside, err := linkAside(b.path)
	if err != nil {
		aside = ""
	}
	if err = os.Rename(next, b.path); err != nil {
		return err
	}
	if dir, err := os.Open(filepath.Dir(b.path)); err == nil {
		_ = dir.Sync()
		dir.Close()
	}
	b.mu.Lock()
	b.db, b.file, b.wrong = db, file, nil
	if aside != "" {
		b.told += ", and is kept as " + aside
	}
	l.held.now.Store(items)
	b.mu.Unlock()
	_ = l.past.Rewrite() // which remembers as far as the disk lets it
	return nil
}

// close closes the file, and writes it anew first if it is damaged: the next start shall
// find who had which address.
func (l *plugBook) close(log *slog.Logger) error {
	l.db.check()
	if err := l.db.damage(); err != nil {
		log.Error("the file of leases and attachments was damaged; it is written anew from memory", "err", err)
		if err := l.rewrite(); err != nil {
			return err
		}
	}
	return l.db.Close()
}

// linkAside gives a file one more name, which nobody has: path.damaged, path.damaged.1 …
func linkAside(path string) (aside string, err error) {
	aside = path + ".damaged"
	for n := 1; ; n++ {
		if err = os.Link(path, aside); !errors.Is(err, os.ErrExist) {
			return aside, err
		}
		aside = path + ".damaged." + strconv.Itoa(n)
	}
}

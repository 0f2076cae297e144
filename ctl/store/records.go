package store

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime/debug"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
)

// What stands in the database:
//
//	state    "state"   -> state: current version, provisional or not
//	history  version   -> Entry
//	versions version   -> document as JSON
//
// Keys that are versions are eight bytes, big-endian. Each value is a CRC-32C of
// the rest (four bytes, big-endian), then JSON: bbolt has checksums for its meta
// pages only, and a flipped bit must not become another VLAN.

const format = 1

var (
	bucketState    = []byte("state")
	bucketHistory  = []byte("history")
	bucketVersions = []byte("versions")
	keyState       = []byte("state")
)

type state struct {
	Format  int      `json:"format"`
	Current uint64   `json:"current"`
	Pending *Pending `json:"pending,omitempty"`
}

var errDamaged = errors.New("damaged")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func frame(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(text, castagnoli)), text...), nil
}

// unframe returns the JSON of a value; what names it in the error.
func unframe(value []byte, what string) ([]byte, error) {
	if len(value) < 4 || binary.BigEndian.Uint32(value) != crc32.Checksum(value[4:], castagnoli) {
		return nil, fmt.Errorf("%s is %w: its checksum does not match", what, errDamaged)
	}
	return value[4:], nil
}

func versionKey(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func writeState(tx *bbolt.Tx, s state) error {
	b, err := tx.CreateBucketIfNotExists(bucketState)
	if err != nil {
		return err
	}
	value, err := frame(s)
	if err != nil {
		return err
	}
	return b.Put(keyState, value)
}

// writeVersion writes a version, makes it current and drops old ones.
func writeVersion(tx *bbolt.Tx, doc config.Document, e Entry, s state, drop []uint64) error {
	if e.Version > lastVersion {
		return errors.New("there are no more version numbers")
	}
	if err := writeState(tx, s); err != nil {
		return err
	}
	for _, part := range []struct {
		bucket []byte
		value  any
	}{{bucketHistory, e}, {bucketVersions, doc}} {
		b, err := tx.CreateBucketIfNotExists(part.bucket)
		if err != nil {
			return err
		}
		value, err := frame(part.value)
		if err != nil {
			return err
		}
		if len(value) > config.MaxDocument {
			return fmt.Errorf("the document has %d bytes as JSON: want at most %d", len(value), config.MaxDocument)
		}
		if err := b.Put(versionKey(e.Version), value); err != nil {
			return err
		}
		for _, old := range drop {
			if err := b.Delete(versionKey(old)); err != nil {
				return err
			}
		}
	}
	return nil
}

// readState gives the zero state for a database nothing was put in yet.
func readState(tx *bbolt.Tx) (state, error) {
	var s state
	b := tx.Bucket(bucketState)
	if b == nil {
		return s, nil
	}
	text, err := unframe(b.Get(keyState), "the state record")
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("the state record is %w: %w", errDamaged, err)
	}
	if s.Format != format {
		return s, fmt.Errorf("it is of format %d: this vswitchd reads format %d", s.Format, format)
	}
	return s, nil
}

func readHistory(tx *bbolt.Tx) ([]Entry, error) {
	b := tx.Bucket(bucketHistory)
	if b == nil {
		return nil, nil
	}
	var list []Entry
	return list, b.ForEach(func(key, value []byte) error {
		text, err := unframe(value, "the history")
		if err != nil {
			return err
		}
		var e Entry
		if err := json.Unmarshal(text, &e); err != nil || len(key) != 8 || e.Version != binary.BigEndian.Uint64(key) {
			return fmt.Errorf("the history is %w", errDamaged)
		}
		list = append(list, e)
		return nil
	})
}

// readDocument reads and judges a version. An error that is not errDamaged means
// that the bytes are as they were written and this program cannot use them.
func readDocument(tx *bbolt.Tx, version uint64) (config.Document, error) {
	b := tx.Bucket(bucketVersions)
	if b == nil {
		return config.Document{}, fmt.Errorf("version %d is %w: it is missing", version, errDamaged)
	}
	text, err := unframe(b.Get(versionKey(version)), fmt.Sprintf("version %d", version))
	if err != nil {
		return config.Document{}, err
	}
	doc, err := config.Parse(text)
	if err == nil {
		err = doc.Validate()
	}
	return doc, err
}

// faultError is a panic or a memory fault inside bbolt.
type faultError struct {
	cause any
	stack []byte
}

func (e *faultError) Error() string { return fmt.Sprintf("%v: %v", errDamaged, e.cause) }

func (e *faultError) Unwrap() error { return errDamaged }

// guard turns a panic of f into a faultError; so it does with a fault on a mapped
// page, such as of a disk that fails (SIGBUS).
func guard(f func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(before)
	defer func() {
		if cause := recover(); cause != nil {
			err = &faultError{cause, debug.Stack()}
		}
	}()
	return f()
}

// writeSynced writes a file and its contents to the disk; when it fails no file
// is left.
func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}

// renameSynced renames within a directory and returns when that is on the disk.
func renameSynced(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

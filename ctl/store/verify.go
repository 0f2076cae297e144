package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// Theory of operation. bbolt maps its file and follows what it finds there. On a
// damaged file it can do worse than panic: run for ever, exhaust the stack on a
// page that is its own child, fault in a goroutine of its own (Tx.Check), take
// memory by a wrong count. None of these can be recovered from. So the file is
// walked first with bounds checked: each page reachable from the newest meta
// page is visited once, and the free list must name the rest. It takes time
// in proportion to the file and memory of two bits a page.
//
// The format is bbolt's version 2 (internal/common: page.go, meta.go,
// bucket.go), in the byte order of the machine:
//
//	page     id:8 flags:2 count:2 overflow:4, then elements; overflow counts
//	         the pages that follow and belong to it
//	meta     magic:4 version:4 pagesize:4 flags:4 root:8 sequence:8 freelist:8
//	         pages:8 txid:8 checksum:8; in pages 0 and 1
//	branch   pos:4 ksize:4 page:8; the key is pos behind the element's begin
//	leaf     flags:4 pos:4 ksize:4 vsize:4; key and value likewise
//	bucket   root:8 sequence:8, the value of a leaf element with flag 1; root 0:
//	         a page follows in the value itself
//	freelist ids:8 each; a count of 0xffff: the first is the count

const (
	pageHeader  = 16
	element     = 16
	metaSize    = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = ^uint64(0)

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10

	maxTreeDepth = 64 // of branch pages and nested buckets together
)

// verify reads the file at path and says what is wrong with it, wrapping
// errDamaged; other errors mean that it could not be read.
func verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	w := &walker{r: f, size: uint64(info.Size())}
	if err := w.walk(); err != nil {
		var pathErr *os.PathError
		if errors.As(err, &pathErr) {
			return err // the disk, not its contents
		}
		return fmt.Errorf("%s is %w: %w", path, errDamaged, err)
	}
	return nil
}

type meta struct{ pageSize, root, freelist, pages, txid uint64 }

type walker struct {
	r        io.ReaderAt
	size     uint64
	pageSize uint64
	pages    uint64 // below this id
	seen     []bool // by page: reachable
	free     []bool // by page: on the free list
}

func (w *walker) walk() error {
	m, err := w.newestMeta()
	if err != nil {
		return err
	}
	w.pageSize, w.pages = m.pageSize, m.pages
	if m.pages < 4 || m.pages > w.size/m.pageSize {
		return fmt.Errorf("it should have %d pages of %d bytes, and has %d bytes", m.pages, m.pageSize, w.size)
	}
	w.seen, w.free = make([]bool, m.pages), make([]bool, m.pages)
	w.seen[0], w.seen[1] = true, true
	if m.freelist != noFreelist {
		if err := w.freelist(m.freelist); err != nil {
			return err
		}
	}
	if err := w.tree(m.root, nil, nil, 0); err != nil {
		return err
	}
	if m.freelist == noFreelist {
		return nil // bbolt finds the free pages as we did the others
	}
	for id := range w.seen {
		if w.seen[id] == w.free[id] {
			return fmt.Errorf("page %d is in use and free, or neither", id)
		}
	}
	return nil
}

// newestMeta is the meta page that bbolt will go by.
func (w *walker) newestMeta() (best meta, err error) {
	found := false
	for page := uint64(0); page < 2; page++ {
		// The second page's place depends on the page size, which the first says;
		// when that is damaged, bbolt tries sizes, and so do we.
		sizes := []uint64{0}
		if page == 1 {
			sizes = []uint64{best.pageSize}
			if !found {
				sizes = []uint64{1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16}
			}
		}
		for _, at := range sizes {
			b := make([]byte, pageHeader+metaSize)
			if n, err := w.r.ReadAt(b, int64(at)); n < len(b) {
				if err != nil && !errors.Is(err, io.EOF) {
					return best, err
				}
				continue
			}
			m, ok := decodeMeta(b[pageHeader:])
			// Not judged by the page's header: bbolt does not look at it either.
			if !ok || page == 1 && m.pageSize != at {
				continue
			}
			if !found || m.txid > best.txid {
				best, found = m, true
			}
			break
		}
	}
	if !found {
		return best, errors.New("neither meta page is valid")
	}
	return best, nil
}

func decodeMeta(b []byte) (meta, bool) {
	le := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(b[:56])
	m := meta{pageSize: uint64(le.Uint32(b[8:])), root: le.Uint64(b[16:]), freelist: le.Uint64(b[32:]), pages: le.Uint64(b[40:]), txid: le.Uint64(b[48:])}
	return m, le.Uint32(b) == metaMagic && le.Uint32(b[4:]) == metaVersion && le.Uint64(b[56:]) == sum.Sum64() &&
		m.pageSize >= 512 && m.pageSize <= 1<<20
}

// page reads a page and those that overflow from it, and marks them as seen.
func (w *walker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= w.pages {
		return nil, fmt.Errorf("page %d does not exist", id)
	}
	header := make([]byte, pageHeader)
	if _, err := w.r.ReadAt(header, int64(id*w.pageSize)); err != nil {
		return nil, err
	}
	if own := binary.NativeEndian.Uint64(header); own != id {
		return nil, fmt.Errorf("page %d says it is page %d", id, own)
	}
	n := uint64(binary.NativeEndian.Uint32(header[12:])) + 1
	if n > w.pages-id {
		return nil, fmt.Errorf("page %d goes on for %d pages", id, n)
	}
	for i := id; i < id+n; i++ {
		if w.seen[i] || w.free[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i] = true
	}
	b := make([]byte, n*w.pageSize)
	if _, err := w.r.ReadAt(b, int64(id*w.pageSize)); err != nil {
		return nil, err
	}
	return b, nil
}

func (w *walker) freelist(id uint64) error {
	b, err := w.page(id)
	if err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(b[8:]) != flagFreelist {
		return fmt.Errorf("page %d is no free list", id)
	}
	count, b := uint64(binary.NativeEndian.Uint16(b[10:])), b[pageHeader:]
	if count == 0xffff {
		count, b = binary.NativeEndian.Uint64(b), b[8:]
	}
	if count > uint64(len(b)/8) {
		return fmt.Errorf("the free list has %d entries", count)
	}
	last := uint64(1)
	for i := uint64(0); i < count; i++ {
		free := binary.NativeEndian.Uint64(b[i*8:])
		if free <= last || free >= w.pages || w.seen[free] {
			return fmt.Errorf("the free list names page %d", free)
		}
		w.free[free] = true
		last = free
	}
	return nil
}

// tree walks the pages below id, whose keys are from low on and below high; nil
// is no bound.
func (w *walker) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxTreeDepth {
		return fmt.Errorf("page %d is too deep in the tree", id)
	}
	b, err := w.page(id)
	if err != nil {
		return err
	}
	return w.elements(b, id, low, high, depth)
}

// elements walks a branch or leaf page.
func (w *walker) elements(b []byte, id uint64, low, high []byte, depth int) error {
	le := binary.NativeEndian
	flags, count := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	if flags != flagBranch && flags != flagLeaf {
		return fmt.Errorf("page %d has flags %#x", id, flags)
	}
	if pageHeader+count*element > len(b) {
		return fmt.Errorf("page %d has %d elements", id, count)
	}
	if flags == flagBranch && count == 0 {
		return fmt.Errorf("page %d is a branch without elements", id)
	}
	// cut is size bytes at pos behind element i, or nil when they are not there.
	cut := func(i int, pos, size uint64) []byte {
		begin := uint64(pageHeader+i*element) + pos
		if begin < uint64(pageHeader+count*element) || begin+size > uint64(len(b)) {
			return nil
		}
		return b[begin : begin+size : begin+size]
	}
	keys := make([][]byte, count)
	for i := range count {
		e := b[pageHeader+i*element:]
		pos, ksize := le.Uint32(e), le.Uint32(e[4:])
		if flags == flagLeaf {
			pos, ksize = le.Uint32(e[4:]), le.Uint32(e[8:])
		}
		keys[i] = cut(i, uint64(pos), uint64(ksize))
		switch {
		case keys[i] == nil || len(keys[i]) == 0:
			return fmt.Errorf("page %d has no key %d", id, i)
		case i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0, low != nil && bytes.Compare(keys[i], low) < 0, high != nil && bytes.Compare(keys[i], high) >= 0:
			return fmt.Errorf("page %d has its keys out of order", id)
		}
	}
	for i := range count {
		e := b[pageHeader+i*element:]
		if flags == flagBranch {
			above := high
			if i+1 < count {
				above = keys[i+1]
			}
			if err := w.tree(le.Uint64(e[8:]), keys[i], above, depth+1); err != nil {
				return err
			}
			continue
		}
		ksize, vsize := uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		value := cut(i, uint64(le.Uint32(e[4:]))+ksize, vsize)
		if value == nil {
			return fmt.Errorf("page %d has no value %d", id, i)
		}
		switch le.Uint32(e) {
		case 0:
		case 1:
			if err := w.bucket(value, id, depth+1); err != nil {
				return err
			}
		default:
			return fmt.Errorf("page %d has an element of kind %#x", id, le.Uint32(e))
		}
	}
	return nil
}

func (w *walker) bucket(value []byte, id uint64, depth int) error {
	if len(value) < 16 {
		return fmt.Errorf("page %d has a short bucket", id)
	}
	root := binary.NativeEndian.Uint64(value)
	if root != 0 {
		return w.tree(root, nil, nil, depth)
	}
	inline := value[16:]
	if len(inline) < pageHeader || binary.NativeEndian.Uint64(inline) != 0 || depth > maxTreeDepth ||
		binary.NativeEndian.Uint16(inline[8:]) != flagLeaf {
		return fmt.Errorf("page %d has a bad inline bucket", id)
	}
	return w.elements(inline, id, nil, nil, depth)
}

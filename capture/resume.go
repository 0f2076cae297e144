package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// errNotCapture refuses to write over somebody's file.
var errNotCapture = errors.New("the file exists and is not a pcapng capture; remove it or choose another name")

// wholeBlocks returns how many bytes of a pcapng file are whole blocks: all,
// unless its writer was killed. An empty file has 0. A file that is something
// else is errNotCapture.
func wholeBlocks(f file) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if st.Size() == 0 {
		return 0, nil
	}
	r := &windowed{r: f}
	head, err := r.at(0, 12)
	if err == io.EOF || err == nil && binary.LittleEndian.Uint32(head) != blockSHB {
		return 0, errNotCapture
	}
	if err != nil {
		return 0, fmt.Errorf("read: %w", err)
	}
	if binary.LittleEndian.Uint32(head[8:]) != byteOrderMagic {
		return 0, fmt.Errorf("a capture written on a big-endian machine: %w", errNotCapture)
	}
	for at := int64(0); ; {
		head, err := r.at(at, 8)
		if err == io.EOF {
			return at, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		length := int64(binary.LittleEndian.Uint32(head[4:]))
		if length < minBlock || length%4 != 0 || at+length > st.Size() {
			return at, nil
		}
		tail, err := r.at(at+length-4, 4)
		if err != nil {
			return 0, fmt.Errorf("read: %w", err)
		}
		if int64(binary.LittleEndian.Uint32(tail)) != length {
			return at, nil
		}
		at += length
	}
}

// windowed reads small pieces of a large file, in rising order, with few system
// calls.
type windowed struct {
	r     io.ReaderAt
	buf   [64 << 10]byte
	start int64
	n     int
}

// at returns length bytes at offset; io.EOF when there are fewer.
func (w *windowed) at(offset int64, length int) ([]byte, error) {
	if offset < w.start || offset+int64(length) > w.start+int64(w.n) {
		n, err := w.r.ReadAt(w.buf[:], offset)
		if n < length {
			if err == nil {
				err = io.ErrNoProgress
			}
			return nil, err
		}
		w.start, w.n = offset, n
	}
	return w.buf[offset-w.start:][:length], nil
}

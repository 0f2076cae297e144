package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// mayWrite refuses to write a file's bytes to a terminal, before anybody is asked.
func (a *app) mayWrite(file string) error {
	if f, ok := a.out.(*os.File); file == "-" && ok && isTerminal(f) {
		return &usageError{message: "-w -: standard output is a terminal; pipe it to a program such as `wireshark -k -i -`, or name a file"}
	}
	return nil
}

// save writes a stream in pcapng format to a file, or standard output, by whole blocks
// only: however it ends, what is there is a valid file. It counts the frames.
func (a *app) save(body io.ReadCloser, file string) (n counts, err error) {
	defer body.Close()
	w := a.out
	if file != "-" {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
		if err != nil {
			return n, err
		}
		defer func() {
			if cerr := f.Close(); cerr != nil && (err == nil || errors.Is(err, io.EOF)) {
				err = cerr
			}
		}()
		if isTerminal(f) {
			return n, fmt.Errorf("%s is a terminal", file)
		}
		w = f
	}
	return copyBlocks(w, body)
}

// Blocks of a pcapng file, see package capture.
const (
	blockHead    = 8  // type and length
	minBlock     = 12 // and the length again
	maxBlock     = 1 << 20
	blockEPB     = 6
	epbFixed     = 28 // of an EPB before the packet's data
	optEnd       = 0
	epbDropCount = 4
	gatherBytes  = 64 << 10 // written at once, if so many are there
)

// copyBlocks copies whole blocks until the stream ends, and counts packets, and those
// that the blocks say are missing. Where a write fails in the middle of a block, a
// regular file is cut back to the last whole one.
func copyBlocks(w io.Writer, r io.Reader) (n counts, err error) {
	br := bufio.NewReaderSize(r, 256<<10)
	var out []byte
	var written int64
	flush := func() error {
		if len(out) == 0 {
			return nil
		}
		k, err := w.Write(out)
		if err != nil {
			if f, ok := w.(*os.File); ok && k > 0 {
				f.Truncate(written) // a pipe has no use for it
			}
			return fmt.Errorf("write capture: %w", err)
		}
		written += int64(k)
		out = out[:0]
		return nil
	}
	for {
		head, err := br.Peek(blockHead)
		if err != nil {
			return n, endOf(err, len(head))
		}
		size := int(binary.LittleEndian.Uint32(head[4:]))
		if size < minBlock || size > maxBlock || size%4 != 0 {
			return n, fmt.Errorf("read capture: a block of %d bytes", size)
		}
		at := len(out)
		out = append(out, make([]byte, size)...)
		if k, err := io.ReadFull(br, out[at:]); err != nil {
			out = out[:at]
			return n, errors.Join(endOf(err, k), flush())
		}
		frames, missed := countBlock(out[at:])
		n.frames, n.missed = n.frames+frames, n.missed+missed
		if br.Buffered() < blockHead || len(out) >= gatherBytes {
			if err := flush(); err != nil {
				return n, err
			}
		}
	}
}

// endOf is how a stream ended of whose last block k bytes were read; nil: as it should.
func endOf(err error, k int) error {
	if errors.Is(err, io.EOF) && k == 0 {
		return nil
	}
	return err
}

// countBlock returns how many frames a block holds, 0 or 1, and how many it says were
// missed before it.
func countBlock(b []byte) (frames, missed uint64) {
	if binary.LittleEndian.Uint32(b) != blockEPB || len(b) < epbFixed+4 {
		return 0, 0
	}
	kept := uint64(binary.LittleEndian.Uint32(b[20:]))
	at := epbFixed + (kept+3)&^3
	for end := uint64(len(b) - 4); at+4 <= end; {
		code, size := binary.LittleEndian.Uint16(b[at:]), uint64(binary.LittleEndian.Uint16(b[at+2:]))
		if code == optEnd || at+4+size > end {
			break
		}
		if code == epbDropCount && size == 8 {
			missed = binary.LittleEndian.Uint64(b[at+4:])
		}
		at += 4 + (size+3)&^3
	}
	return 1, missed
}

package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"
)

var port = Interface{Name: "veth1"}

// packet n of a sequence: its data says which it is.
func packet(n int) *Packet {
	return &Packet{Time: time.Unix(0, int64(n+1)), Interface: port, Data: fmt.Appendf(nil, "%-100d", n)}
}

// read returns the numbers of the packets in a file.
func read(t *testing.T, path string) (numbers []int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := pcapgo.NewNgReader(f, pcapgo.DefaultNgReaderOptions)
	if err == io.EOF {
		return nil // a section without packets
	}
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for {
		data, _, err := r.ReadPacketData()
		if err == io.EOF {
			return numbers
		}
		if err != nil {
			t.Fatalf("%s: packet %d: %v", path, len(numbers), err)
		}
		var n int
		if _, err := fmt.Sscan(string(data), &n); err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
}

func mustNew(t *testing.T, o FileOptions) *File {
	t.Helper()
	f, err := NewFile(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	f := mustNew(t, FileOptions{Path: dir + "/web.pcapng", Size: 4096, Files: 3})
	const total = 200
	for n := range total {
		f.Write(packet(n))
		f.Flush()
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if s := f.Status(); s.Packets != total || s.Dropped != 0 || s.Err != nil {
		t.Errorf("status %+v", s)
	}
	seen := map[int]bool{}
	for _, name := range []string{"web.pcapng", "web.1.pcapng", "web.2.pcapng"} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > 4096+400 {
			t.Errorf("%s has %d bytes", name, st.Size())
		}
		numbers := read(t, filepath.Join(dir, name))
		for i, n := range numbers {
			if seen[n] {
				t.Errorf("packet %d twice", n)
			}
			if i > 0 && n != numbers[i-1]+1 {
				t.Errorf("%s: %d after %d", name, n, numbers[i-1])
			}
			seen[n] = true
		}
	}
	for n := total - len(seen); n < total; n++ {
		if !seen[n] {
			t.Errorf("packet %d is missing: not the newest were kept", n)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("%d files", len(entries))
	}
}

// TestSetGoesOn: a new File begins behind the newest of the set.
func TestSetGoesOn(t *testing.T) {
	dir := t.TempDir()
	o := FileOptions{Path: dir + "/c.pcapng", Size: 1 << 20, Files: 3}
	for n, want := range []string{"c.pcapng", "c.1.pcapng", "c.2.pcapng", "c.pcapng"} {
		f := mustNew(t, o)
		if got := filepath.Base(f.Status().Path); got != want {
			t.Errorf("run %d writes %s, want %s", n, got, want)
		}
		f.Write(packet(n))
		f.Close()
		then := time.Unix(int64(1000+n), 0) // file times are coarse
		os.Chtimes(filepath.Join(dir, want), then, then)
	}
	if got := read(t, o.Path); len(got) != 1 || got[0] != 3 {
		t.Errorf("the oldest file holds %v", got)
	}
}

// TestSingleFileGoesOn: what a killed writer left is kept, its torn end cut.
func TestSingleFileGoesOn(t *testing.T) {
	path := t.TempDir() + "/c.pcapng"
	f := mustNew(t, FileOptions{Path: path})
	f.Write(packet(0))
	f.Write(packet(1))
	f.Flush()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, cut := range []int{0, 1, 4, 7, 100, 131} {
		if err := os.WriteFile(path, whole[:len(whole)-cut], 0o600); err != nil {
			t.Fatal(err)
		}
		g := mustNew(t, FileOptions{Path: path})
		g.Write(packet(2))
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		want := "[0 1 2]"
		if cut > 0 {
			want = "[0 2]"
		}
		if got := fmt.Sprint(read(t, path)); got != want {
			t.Errorf("cut %d bytes: read %s, want %s", cut, got, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	precious := filepath.Join(dir, "precious")
	os.WriteFile(precious, []byte("not a capture, and longer than twelve bytes"), 0o600)
	short := filepath.Join(dir, "short")
	os.WriteFile(short, []byte("x"), 0o600)
	link := filepath.Join(dir, "link")
	os.Symlink(filepath.Join(dir, "elsewhere"), link)
	fifo := filepath.Join(dir, "fifo")
	syscall.Mkfifo(fifo, 0o600)

	for _, test := range []struct {
		o    FileOptions
		want string
	}{
		{FileOptions{Path: "relative"}, "not an absolute path"},
		{FileOptions{Path: dir + "/"}, "not an absolute path"},
		{FileOptions{Path: dir + "/x", Size: -1}, "must not be negative"},
		{FileOptions{Path: precious}, "not a pcapng capture"},
		{FileOptions{Path: short}, "not a pcapng capture"},
		{FileOptions{Path: precious, Size: 10, Files: 1}, "not a pcapng capture"},
		{FileOptions{Path: link}, "symbolic link"},
		{FileOptions{Path: fifo}, "not a regular file"},
		{FileOptions{Path: dir}, "is a directory"},
		{FileOptions{Path: dir + "/none/x"}, "no such file"},
	} {
		f, err := NewFile(test.o)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", test.o.Path, err, test.want)
		}
		if f != nil {
			f.Write(packet(0))
			if s := f.Status(); s.Dropped != 1 || s.Err == nil {
				t.Errorf("%s: status %+v", test.o.Path, s)
			}
			f.Close()
		}
	}
	if b, _ := os.ReadFile(precious); !bytes.HasPrefix(b, []byte("not a capture")) {
		t.Errorf("the file was written over: %q", b)
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
		t.Error("a symbolic link was followed")
	}
}

// failing is a file whose writes fail when told to, half done.
type failing struct {
	file
	broken *error
}

func (f failing) Write(b []byte) (int, error) {
	if *f.broken != nil {
		n, _ := f.file.Write(b[:len(b)/2])
		return n, *f.broken
	}
	return f.file.Write(b)
}

func TestDiskFailsAndComesBack(t *testing.T) {
	path := t.TempDir() + "/c.pcapng"
	var broken error
	clock := time.Unix(1000, 0)
	f, err := newFile(FileOptions{Path: path}, func(path string) (file, error) {
		out, err := place{}.open(path)
		if err != nil {
			return nil, err
		}
		return failing{out, &broken}, nil
	}, func() time.Time { return clock })
	if err != nil {
		t.Fatal(err)
	}
	f.Write(packet(0))
	f.Flush()

	broken = syscall.EIO
	f.Write(packet(1))
	f.Write(packet(2))
	f.Flush() // fails: both are lost
	f.Write(packet(3))
	if s := f.Status(); !errors.Is(s.Err, syscall.EIO) || s.Dropped != 3 || s.Packets != 1 || !s.Since.Equal(clock) {
		t.Errorf("status %+v", s)
	}
	if got := fmt.Sprint(read(t, path)); got != "[0]" {
		t.Errorf("the broken file holds %s", got)
	}

	clock = clock.Add(retryPause)
	f.Flush() // tries again, in vain
	if s := f.Status(); s.Err == nil || !s.Since.Equal(clock.Add(-retryPause)) {
		t.Errorf("status %+v", s)
	}
	broken = nil
	f.Write(packet(4)) // the pause is not over
	clock = clock.Add(retryPause)
	f.Write(packet(5))
	if s := f.Status(); s.Err != nil || s.Dropped != 4 {
		t.Errorf("status %+v", s)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(read(t, path)); got != "[0 5]" {
		t.Errorf("the file holds %s", got)
	}
	if s := f.Status(); s.Packets+s.Dropped != 6 {
		t.Errorf("6 packets in, status %+v", s)
	}
	// Packet 5 says that four before it are missing: epb_dropcount, 8 bytes.
	raw, _ := os.ReadFile(path)
	if !bytes.Contains(raw, []byte{epbDropCount, 0, 8, 0, 4, 0, 0, 0, 0, 0, 0, 0}) {
		t.Error("the file does not say that 4 packets are missing")
	}
	f.Write(packet(6))
	if s := f.Status(); s.Dropped != 5 {
		t.Errorf("after Close: %+v", s)
	}
}

// TestDiskFull fills a real, small disk: a tmpfs that only this thread sees.
func TestDiskFull(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, and CI=true allows no skipping")
		}
		t.Skip("needs root (it mounts a tmpfs)")
	}
	dir := t.TempDir()
	done := make(chan error)
	go func() { // ends with the test's body; its thread ends with it
		runtime.LockOSThread()
		done <- diskFull(t, dir)
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func diskFull(t *testing.T, dir string) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		return err
	}
	clock := time.Unix(1000, 0)
	f, err := newFile(FileOptions{Path: dir + "/c.pcapng"}, place{}.open, func() time.Time { return clock })
	if err != nil {
		return err
	}
	const total = 4000
	ballast := dir + "/ballast"
	if err := os.WriteFile(ballast, make([]byte, 100<<10), 0o600); err != nil {
		return err
	}
	for n := range total {
		f.Write(packet(n))
		if n%10 == 0 {
			f.Flush()
		}
		if n == total/2 {
			s := f.Status()
			if !errors.Is(s.Err, syscall.ENOSPC) || s.Dropped == 0 || s.Packets == 0 {
				return fmt.Errorf("the disk should be full: %+v", s)
			}
			if got := len(read(t, dir+"/c.pcapng")); uint64(got) != s.Packets {
				return fmt.Errorf("a full disk holds %d packets, counted were %d", got, s.Packets)
			}
			os.Remove(ballast)
			clock = clock.Add(retryPause)
		}
	}
	f.Close()
	s := f.Status()
	if s.Packets+s.Dropped != total {
		return fmt.Errorf("%d packets went in, %d written + %d dropped", total, s.Packets, s.Dropped)
	}
	numbers := read(t, dir+"/c.pcapng")
	if uint64(len(numbers)) != s.Packets {
		return fmt.Errorf("the file holds %d packets, counted were %d", len(numbers), s.Packets)
	}
	if last := numbers[len(numbers)-1]; last < total/2 {
		return fmt.Errorf("writing did not go on when there was room again: last packet %d", last)
	}
	return nil
}

// memory is a file in memory, for the fuzzer.
type memory struct {
	*bytes.Reader
}

func (memory) Write(b []byte) (int, error)  { return len(b), nil }
func (memory) Close() error                 { return nil }
func (memory) Truncate(int64) error         { return nil }
func (m memory) Stat() (os.FileInfo, error) { return sized(m.Size()), nil }
func (s sized) Size() int64                 { return int64(s) }
func (sized) Name() string                  { return "" }
func (sized) Mode() os.FileMode             { return 0 }
func (sized) ModTime() time.Time            { return time.Time{} }
func (sized) IsDir() bool                   { return false }
func (sized) Sys() any                      { return nil }

type sized int64

// FuzzWholeBlocks: any bytes are either refused or cut at a block's end, and what
// remains is judged whole.
func FuzzWholeBlocks(f *testing.F) {
	var out bytes.Buffer
	w := NewWriter(&out, Options{Comment: "seed"})
	w.Write(packet(1))
	w.Close()
	f.Add(out.Bytes())
	f.Add(out.Bytes()[:out.Len()-3])
	f.Add([]byte{0x0a, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := wholeBlocks(memory{bytes.NewReader(b)})
		if err != nil {
			if !errors.Is(err, errNotCapture) {
				t.Fatal(err)
			}
			return
		}
		if n < 0 || n > int64(len(b)) || n%4 != 0 {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		if m, err := wholeBlocks(memory{bytes.NewReader(b[:n])}); err != nil || m != n {
			t.Fatalf("of %d whole bytes %d are whole, %v", n, m, err)
		}
	})
}

func TestFileAllocatesNothing(t *testing.T) {
	f := mustNew(t, FileOptions{Path: t.TempDir() + "/c.pcapng"})
	p, q := packet(1), packet(2)
	q.Interface = Interface{Name: "veth2"}
	f.Write(p)
	f.Write(q)
	if n := testing.AllocsPerRun(1000, func() {
		f.Write(p)
		f.Write(q)
	}); n != 0 {
		t.Errorf("%v allocations a packet", n/2)
	}
	f.Close()
}

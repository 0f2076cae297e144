package reader

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"

	"vswitch/capture"
)

var day = time.Date(2026, 7, 1, 3, 14, 15, 123456000, time.UTC)

// readAll returns copies of all packets, and what ended the reading unless that is the
// file's end.
func readAll(b []byte) (all []Packet, err error) {
	r, err := New(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	for {
		p, err := r.Next()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		c := *p
		c.Data = bytes.Clone(p.Data)
		all = append(all, c)
	}
}

func TestPcap(t *testing.T) {
	for _, tc := range []struct {
		name  string
		order binary.AppendByteOrder
		magic uint32
		nanos int
	}{
		{"little, microseconds", binary.LittleEndian, magicMicros, 123456000},
		{"big, microseconds", binary.BigEndian, magicMicros, 123456000},
		{"little, nanoseconds", binary.LittleEndian, magicNanos, 123456},
		{"big, nanoseconds", binary.BigEndian, magicNanos, 123456},
	} {
		u32 := tc.order.AppendUint32
		b := u32(nil, tc.magic)
		b = append(b, make([]byte, 12)...)
		b = u32(u32(b, 65535), LinkEthernet|4<<26) // with the length of an FCS in the flags
		for i := range 3 {
			b = u32(u32(b, uint32(day.Unix())), 123456)
			b = u32(u32(b, uint32(20+i)), 1500)
			b = append(b, make([]byte, 20+i)...)
		}
		all, err := readAll(b)
		if err != nil || len(all) != 3 {
			t.Fatalf("%s: %d packets, %v", tc.name, len(all), err)
		}
		for i, p := range all {
			if p.Number != i+1 || !p.Time.Equal(time.Unix(day.Unix(), int64(tc.nanos))) || len(p.Data) != 20+i || p.Len != 1500 || p.LinkType != LinkEthernet {
				t.Errorf("%s: packet %d is %+v", tc.name, i, p)
			}
		}
		if data, cut, err := all[0].Frame(); err != nil || !cut || len(data) != 1500 {
			t.Errorf("%s: a frame of %d bytes, cut: %t, %v", tc.name, len(data), cut, err)
		}
		if all, err := readAll(b[:len(b)-1]); len(all) != 2 || err == nil || !strings.Contains(err.Error(), "read packet 3: the capture file ends in the middle") {
			t.Errorf("%s, cut off: %d packets, %v", tc.name, len(all), err)
		}
	}
}

// What package capture writes for mirrors is read, directions and names included.
func TestPcapngOfOurs(t *testing.T) {
	var b bytes.Buffer
	w := capture.NewWriter(&b, capture.Options{Application: "test", Comment: "a section"})
	want := []capture.Packet{
		{Time: day, Interface: capture.Interface{Name: "web"}, Direction: capture.Inbound, Data: make([]byte, 60), Comment: "br0 web in -> db"},
		{Time: day.Add(time.Nanosecond), Interface: capture.Interface{Name: "db", Description: "second"}, Direction: capture.Outbound, Data: make([]byte, 61), OrigLen: 9000},
		{Time: day.Add(time.Second), Interface: capture.Interface{Name: "web"}, Data: make([]byte, 1514)},
	}
	for i := range want {
		w.Write(&want[i])
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	all, err := readAll(b.Bytes())
	if err != nil || len(all) != len(want) {
		t.Fatalf("%d packets, %v", len(all), err)
	}
	for i, p := range all {
		o := max(want[i].OrigLen, len(want[i].Data))
		if p.Interface != want[i].Interface.Name || p.Direction != want[i].Direction || !p.Time.Equal(want[i].Time) || !bytes.Equal(p.Data, want[i].Data) || p.Len != o {
			t.Errorf("packet %d is %+v, want %+v", i, p, want[i])
		}
	}
	// Two sections, one after the other, as files that were joined.
	if all, err := readAll(append(b.Bytes(), b.Bytes()...)); err != nil || len(all) != 6 || all[5].Number != 6 || all[4].Interface != "db" {
		t.Errorf("two sections: %d packets, %v", len(all), err)
	}
}

// gopacket's reader is the oracle for what its writer wrote, and, where editcap is
// there, for what Wireshark's tools make of that.
func TestAgreesWithGopacket(t *testing.T) {
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriterInterface(&b, pcapgo.NgInterface{Name: "eth0", LinkType: layers.LinkTypeEthernet, TimestampResolution: 9}, pcapgo.DefaultNgWriterOptions)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.AddInterface(pcapgo.NgInterface{Name: "any", LinkType: layers.LinkTypeLinuxSLL, TimestampResolution: 3})
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 200 {
		data := make([]byte, 14+r.IntN(300))
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		ci := gopacket.CaptureInfo{Timestamp: day.Add(time.Duration(i) * 12345 * time.Microsecond), CaptureLength: len(data), Length: len(data) + r.IntN(2)*r.IntN(1000), InterfaceIndex: i % 5 / 4 * second}
		if err := w.WritePacket(ci, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	agree(t, "pcapng", b.Bytes())
	if _, err := exec.LookPath("editcap"); err != nil {
		return
	}
	from := filepath.Join(t.TempDir(), "from")
	if err := os.WriteFile(from, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"pcapng", "pcap", "nsecpcap"} {
		args := []string{"-F", format}
		if format != "pcapng" {
			args = append(args, "-r") // one link type alone
		}
		args = append(args, from, from+"."+format)
		if format != "pcapng" {
			args = append(args, "1-4")
		}
		if out, err := exec.Command("editcap", args...).CombinedOutput(); err != nil {
			t.Logf("editcap -F %s: %v: %s", format, err, out)
			continue
		}
		made, err := os.ReadFile(from + "." + format)
		if err != nil {
			t.Fatal(err)
		}
		agree(t, format, made)
	}
}

// oracle reads with gopacket, whatever the format.
func oracle(b []byte) (next func() ([]byte, gopacket.CaptureInfo, error), names func(int) string, err error) {
	if bytes.HasPrefix(b, []byte{0x0a, 0x0d, 0x0d, 0x0a}) {
		r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return nil, nil, err
		}
		return r.ReadPacketData, func(i int) string { n, _ := r.Interface(i); return n.Name }, nil
	}
	r, err := pcapgo.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	return r.ReadPacketData, func(int) string { return "" }, nil
}

func agree(t *testing.T, what string, b []byte) {
	t.Helper()
	all, err := readAll(b)
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %d packets, %v", what, len(all), err)
	}
	next, names, err := oracle(b)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		data, ci, err := next()
		p := all[i]
		if err != nil || !bytes.Equal(data, p.Data) || ci.Length != p.Len || names(ci.InterfaceIndex) != p.Interface || !ci.Timestamp.Equal(p.Time) {
			t.Errorf("%s: packet %d is %+v, gopacket says %+v %x, %v", what, i, p, ci, data, err)
		}
	}
	if _, _, err := next(); err != io.EOF {
		t.Errorf("%s: gopacket goes on: %v", what, err)
	}
}

func TestFrameOfAPacket(t *testing.T) {
	for _, tc := range []struct {
		p    Packet
		want error
	}{
		{Packet{Data: make([]byte, 14), Len: 14, LinkType: LinkEthernet}, nil},
		{Packet{Data: make([]byte, 13), Len: 13, LinkType: LinkEthernet}, ErrTooShort},
		{Packet{Data: make([]byte, 60), Len: math.MaxInt32, LinkType: LinkEthernet}, ErrTooLong},
		{Packet{Data: make([]byte, 60), Len: 60, LinkType: 113}, ErrNotEthernet},
	} {
		if _, _, err := tc.p.Frame(); !errors.Is(err, tc.want) {
			t.Errorf("%d bytes: %v, want %v", len(tc.p.Data), err, tc.want)
		}
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"", "is empty"},
		{"\x1f\x8b\x08\x00 gzip", "neither pcap nor pcapng"},
		{"\xd4\xc3\xb2\xa1", "ends"},
		{"\x0a\x0d\x0d\x0a\x1c\x00\x00\x00\x00\x00\x00\x00", "byte order"},
		{"\x0a\x0d\x0d\x0a\xff\xff\xff\xff\x4d\x3c\x2b\x1a", "length"},
	} {
		if _, err := readAll([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v, want %q", tc.text, err, tc.want)
		}
	}
}

// Any bytes are a file or an error.
func FuzzReader(f *testing.F) {
	var b bytes.Buffer
	w := capture.NewWriter(&b, capture.Options{})
	w.Write(&capture.Packet{Time: day, Interface: capture.Interface{Name: "web"}, Direction: capture.Inbound, Data: make([]byte, 60)})
	w.Flush()
	f.Add(b.Bytes())
	f.Add(append([]byte("\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00"),
		"\x01\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00ab"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := readAll(b)
		for _, p := range all {
			if len(p.Data) > p.Len || len(p.Data) > maxPacket {
				t.Fatalf("packet %+v", p)
			}
			if data, _, err := p.Frame(); err == nil && !bytes.HasPrefix(data, p.Data) {
				t.Fatalf("a frame of %d bytes for %d", len(data), len(p.Data))
			}
		}
		if err == nil && len(all) > len(b) {
			t.Fatalf("%d packets in %d bytes", len(all), len(b))
		}
	})
}

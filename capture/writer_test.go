package capture_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
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

var (
	when = time.Unix(1_700_000_000, 123_456_789)
	web  = capture.Interface{Name: "veth-web", Description: "port of bridge br0, tag 10"}
	db   = capture.Interface{Name: "veth-db"}
)

// frameOf returns a UDP datagram with right checksums and n bytes of payload.
func frameOf(t testing.TB, n int) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: []byte{2, 0, 0, 0, 0, 1}, DstMAC: []byte{2, 0, 0, 0, 0, 2}, EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: []byte{10, 0, 0, 1}, DstIP: []byte{10, 0, 0, 2}}
	udp := &layers.UDP{SrcPort: 40000, DstPort: 40001}
	udp.SetNetworkLayerForChecksum(ip)
	b := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		eth, ip, udp, gopacket.Payload(bytes.Repeat([]byte{0xa5}, n)))
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReadBackWithGopacket(t *testing.T) {
	var out bytes.Buffer
	w := capture.NewWriter(&out, capture.Options{SnapLen: 100, Application: "vswitchd test", OS: "Linux", Hardware: "any", Comment: "a section"})
	packets := []capture.Packet{
		{Time: when, Interface: web, Direction: capture.Inbound, Data: frameOf(t, 1)},
		{Time: when.Add(time.Nanosecond), Interface: db, Direction: capture.Outbound, Data: frameOf(t, 2), Comment: "copy 2"},
		{Time: when.Add(2), Interface: web, Data: frameOf(t, 300), Dropped: 7},
		{Time: when.Add(3), Interface: db, Data: frameOf(t, 20), OrigLen: 9000},
	}
	for i := range packets {
		if err := w.Write(&packets[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(&packets[0]); err == nil {
		t.Error("a closed writer takes packets")
	}

	stats := make(map[int]pcapgo.NgInterfaceStatistics)
	r, err := pcapgo.NewNgReader(&out, pcapgo.NgReaderOptions{
		StatisticsCallback: func(id int, s pcapgo.NgInterfaceStatistics) { stats[id] = s },
	})
	if err != nil {
		t.Fatal(err)
	}
	if s := r.SectionInfo(); s.Application != "vswitchd test" || s.OS != "Linux" || s.Hardware != "any" || s.Comment != "a section" {
		t.Errorf("section %+v", s)
	}
	for i, want := range packets {
		data, ci, err := r.ReadPacketData()
		if err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		iface, err := r.Interface(ci.InterfaceIndex)
		if err != nil {
			t.Fatal(err)
		}
		if iface.Name != want.Interface.Name || iface.Description != want.Interface.Description || iface.TimestampResolution != 9 {
			t.Errorf("packet %d: interface %+v", i, iface)
		}
		if !bytes.Equal(data, want.Data[:min(100, len(want.Data))]) {
			t.Errorf("packet %d: bytes differ", i)
		}
		if orig := max(want.OrigLen, len(want.Data)); ci.Length != orig {
			t.Errorf("packet %d: length %d, want %d", i, ci.Length, orig)
		}
		if !ci.Timestamp.Equal(want.Time) {
			t.Errorf("packet %d: time %v, want %v", i, ci.Timestamp, want.Time)
		}
	}
	if _, _, err := r.ReadPacketData(); err != io.EOF {
		t.Fatalf("after the last packet: %v", err)
	}
	if s := stats[0]; s.PacketsReceived != 2+7 || s.PacketsDropped != 7 || !s.StartTime.Equal(when) || !s.EndTime.Equal(when.Add(2)) {
		t.Errorf("statistics of %s: %+v", web.Name, s)
	}
}

// TestReadBackWithTshark asks Wireshark's dissectors, the oracle for the format.
func TestReadBackWithTshark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.pcapng")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	w := capture.NewWriter(out, capture.Options{})
	for i, p := range []capture.Packet{
		{Time: when, Interface: web, Direction: capture.Inbound, Data: frameOf(t, 1), Comment: "first, naïve"},
		{Time: when.Add(1), Interface: db, Direction: capture.Outbound, Data: frameOf(t, 1400), Dropped: 3},
		{Time: when.Add(2), Interface: web, Data: frameOf(t, 3)},
	} {
		if err := w.Write(&p); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	got := tshark(t, path, "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE", "-T", "fields", "-E", "separator=|",
		"-e", "frame.time_epoch", "-e", "frame.interface_name", "-e", "frame.interface_description",
		"-e", "frame.packet_flags_direction", "-e", "frame.comment", "-e", "frame.drop_count", "-e", "frame.len",
		"-e", "udp.checksum.status", "-e", "_ws.malformed", "-e", "_ws.expert.message")
	want := strings.Join([]string{
		"1700000000.123456789|veth-web|port of bridge br0, tag 10|0x00000001|first, naïve||60|1||first, naïve",
		"1700000000.123456790|veth-db||0x00000002||3|1442|1||",
		"1700000000.123456791|veth-web|port of bridge br0, tag 10||||60|1||",
	}, "\n") + "\n"
	if got != want {
		t.Errorf("tshark reads\n%swant\n%s", got, want)
	}
}

// tshark runs it on a file; it is installed by `make test`.
func tshark(t testing.TB, path string, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("tshark")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	cmd := exec.Command(tool, append([]string{"-n", "-r", path}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v\n%s", err, stderr.String())
	}
	for line := range strings.Lines(stderr.String()) {
		if !strings.Contains(line, "Running as user") && strings.TrimSpace(line) != "" {
			t.Errorf("tshark says: %s", line)
		}
	}
	return string(out)
}

// blocks checks the frame of every block, and returns their types.
func blocks(t testing.TB, b []byte) (types []uint32) {
	t.Helper()
	for len(b) > 0 {
		if len(b) < 12 {
			t.Fatalf("%d bytes are no block", len(b))
		}
		length := binary.LittleEndian.Uint32(b[4:])
		if length%4 != 0 || length < 12 || int(length) > len(b) {
			t.Fatalf("block length %d of %d", length, len(b))
		}
		if binary.LittleEndian.Uint32(b[length-4:]) != length {
			t.Fatalf("block lengths differ")
		}
		types = append(types, binary.LittleEndian.Uint32(b))
		b = b[length:]
	}
	return types
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestWritesWholeBlocks(t *testing.T) {
	calls := 0
	w := capture.NewWriter(writerFunc(func(b []byte) (int, error) {
		calls++
		blocks(t, b)
		return len(b), nil
	}), capture.Options{})
	data := frameOf(t, 999)
	for i := range 1000 {
		if err := w.Write(&capture.Packet{Time: when, Interface: web, Data: data[:i], Comment: strings.Repeat("c", i%7)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if calls < 2 || calls > 20 {
		t.Errorf("%d writes", calls)
	}
}

func TestWriterErrorSticks(t *testing.T) {
	broken := errors.New("broken")
	w := capture.NewWriter(writerFunc(func(b []byte) (int, error) { return 0, broken }), capture.Options{})
	if err := w.Write(&capture.Packet{Time: when, Interface: web, Data: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"flush": w.Flush(),
		"write": w.Write(&capture.Packet{Time: when, Interface: web}),
		"close": w.Close(),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestWriterAllocatesNothing(t *testing.T) {
	w := capture.NewWriter(io.Discard, capture.Options{})
	p := capture.Packet{Time: when, Interface: web, Direction: capture.Inbound, Data: frameOf(t, 1400), Comment: "mirror m0"}
	q := p
	q.Interface = db
	w.Write(&p)
	w.Write(&q)
	if n := testing.AllocsPerRun(1000, func() {
		w.Write(&p)
		w.Write(&q)
	}); n != 0 {
		t.Errorf("%v allocations a packet", n/2)
	}
}

// FuzzWriter: whatever the lengths and the text, gopacket reads the packets back.
func FuzzWriter(f *testing.F) {
	f.Add("veth1", "a port", "comment", []byte("data"), uint16(0), uint64(0), uint8(1), int64(1), 0)
	f.Add("", "", "", []byte{}, uint16(1), uint64(1), uint8(9), int64(-1), 1)
	f.Add("\xff", strings.Repeat("ü", 20000), strings.Repeat("€", 30000), make([]byte, 70000), uint16(9000), ^uint64(0), uint8(2), int64(1<<62), 65535)
	f.Fuzz(func(t *testing.T, name, description, comment string, data []byte, orig uint16, dropped uint64, direction uint8, ns int64, snap int) {
		var out bytes.Buffer
		w := capture.NewWriter(&out, capture.Options{SnapLen: snap, Comment: comment, Application: name})
		p := capture.Packet{
			Time: time.Unix(0, ns), Interface: capture.Interface{Name: name, Description: description},
			Direction: capture.Direction(direction), Data: data, OrigLen: int(orig), Comment: comment, Dropped: dropped,
		}
		for range 2 {
			if err := w.Write(&p); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if types := blocks(t, out.Bytes()); len(types) != 5 {
			t.Fatalf("blocks %v", types)
		}
		r, err := pcapgo.NewNgReader(&out, pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		want := data
		if snap > 0 && len(want) > snap {
			want = want[:snap]
		}
		if len(want) > 262144 {
			want = want[:262144]
		}
		for range 2 {
			got, ci, err := r.ReadPacketData()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) || ci.Length != max(int(orig), len(data)) {
				t.Fatalf("read %d of %d bytes, want %d of %d", len(got), ci.Length, len(want), max(int(orig), len(data)))
			}
			if ns > 0 && ci.Timestamp.UnixNano() != ns {
				t.Fatalf("time %d, want %d", ci.Timestamp.UnixNano(), ns)
			}
		}
		if _, _, err := r.ReadPacketData(); err != io.EOF {
			t.Fatalf("at the end: %v", err)
		}
	})
}

func BenchmarkWriter(b *testing.B) {
	w := capture.NewWriter(io.Discard, capture.Options{})
	p := capture.Packet{Time: when, Interface: web, Direction: capture.Inbound, Data: frameOf(b, 1400)}
	b.SetBytes(int64(len(p.Data)))
	b.ReportAllocs()
	for b.Loop() {
		w.Write(&p)
	}
}

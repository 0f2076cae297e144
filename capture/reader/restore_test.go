package reader_test

import (
	"bytes"
	"strings"
	"testing"

	"vswitch/capture/reader"
	"vswitch/ctl/craft"
	"vswitch/frame"
)

const macs = "eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:02 "

// made is a frame of words, which is as Linux would send it.
func made(t testing.TB, words string) craft.Frame {
	t.Helper()
	s, err := craft.Parse(strings.Fields(words))
	if err != nil {
		t.Fatalf("%s: %v", words, err)
	}
	f, err := s.Frame()
	if err != nil {
		t.Fatalf("%s: %v", words, err)
	}
	return f
}

// A super-frame that is finished, as a capture shows it, is given its state back.
func TestRestore(t *testing.T) {
	for _, words := range []string{"super=10000 mss=1460", "super=50000 vlan=7 mss=1460", "super=3000 mss=1440 ip_src=fd00::1 ip_dst=fd00::2"} {
		made := made(t, macs+words)
		seen := bytes.Clone(made.Data)
		o := made.Offload
		if err := frame.Finish(seen, &o); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(seen, made.Data) {
			t.Fatalf("%s: the checksum was not partial", words)
		}
		got, ok := reader.Restore(seen, 1500)
		if !ok || got != made.Offload || !bytes.Equal(seen, made.Data) {
			t.Errorf("%s: restored %t to %+v, want %+v", words, ok, got, made.Offload)
		}
		if _, ok := reader.Restore(seen, len(seen)); ok {
			t.Errorf("%s: restored one that fits", words)
		}
	}
	for _, words := range []string{"udp len=5000", "len=5000", "tcp len=1514", "arp"} {
		made := made(t, macs+words)
		before := bytes.Clone(made.Data)
		if o, ok := reader.Restore(made.Data, 1500); ok || o != (frame.Offload{}) || !bytes.Equal(before, made.Data) {
			t.Errorf("%s: restored", words)
		}
	}
}

// Whatever the bytes, the state is one that the switch takes.
func FuzzRestore(f *testing.F) {
	f.Add(made(f, macs+"super=3000 vlan=3").Data, 1500)
	f.Fuzz(func(t *testing.T, b []byte, mtu int) {
		b = bytes.Clone(b[:min(len(b), frame.MaxLen)])
		o, ok := reader.Restore(b, mtu)
		if !ok {
			if o != (frame.Offload{}) {
				t.Fatalf("%x: %+v", b, o)
			}
			return
		}
		if int(o.CsumStart)+int(o.CsumOffset)+2 > len(b) || int(o.HdrLen) > len(b) || o.GSOSize == 0 || int(o.HdrLen) < frame.EthLen {
			t.Fatalf("%d bytes: %+v", len(b), o)
		}
	})
}

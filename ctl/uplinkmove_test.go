package ctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// twoEnds makes a veth pair v0, v1 in a host, gives v0 what commands of ip(8) say, and runs f there.
func twoEnds(t *testing.T, f func(v0, v1 end) error, commands ...string) *lab.Host {
	t.Helper()
	h := lab.New(t).Host("a")
	h.MustExec("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
	for _, c := range append([]string{"link set v0 up", "link set v1 up"}, commands...) {
		h.MustExec(append([]string{"ip"}, strings.Fields(c)...)...)
	}
	err := h.Do(func() error {
		v0, err := netlink.LinkByName("v0")
		if err != nil {
			return err
		}
		v1, err := netlink.LinkByName("v1")
		if err != nil {
			return err
		}
		return f(end{v0.Attrs().Index, "v0"}, end{v1.Attrs().Index, "v1"})
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestMoveUndone: a route that cannot be had at the other end leaves everything where it was.
func TestMoveUndone(t *testing.T) {
	state := func(v end) (string, error) {
		addresses, err := addressesOn(v.index)
		if err != nil {
			return "", err
		}
		routes, err := routesBy(v.index, addresses)
		var all []string
		for _, a := range addresses {
			all = append(all, a.Prefix.String())
		}
		for _, g := range routes {
			all = append(all, g.Text)
		}
		return strings.Join(all, "\n"), err
	}
	twoEnds(t, func(v0, v1 end) error {
		addresses, err := addressesOn(v0.index)
		if err != nil {
			return err
		}
		routes, err := routesBy(v0.index, addresses)
		if err != nil {
			return err
		}
		if len(addresses) != 3 || len(routes) != 3 {
			t.Errorf("%d addresses, %d routes", len(addresses), len(routes))
		}
		before, err := state(v0)
		if err != nil {
			return err
		}
		bad := routes[len(routes)-1]
		for _, g := range routes {
			if strings.HasPrefix(g.Text, "0.0.0.0/0 via") {
				bad = g
			}
		}
		bad.Words = bytes.Replace(bad.Words, []byte{192, 0, 2, 9}, []byte{8, 8, 8, 8}, 1)
		bad.Text = "an impossible one"
		err = move(v0, v1, addresses, append(slices.Clone(routes), bad))
		if err == nil || !strings.Contains(err.Error(), "impossible") {
			t.Errorf("a route by a gateway that nobody reaches was set: %v", err)
		}
		after, err := state(v0)
		if err != nil || after != before {
			t.Errorf("v0 has\n%s\nwant\n%s (%v)", after, before, err)
		}
		if other, err := state(v1); other != "" || err != nil {
			t.Errorf("v1 has\n%s (%v)", other, err)
		}
		// And without it, there and back.
		if err := move(v0, v1, addresses, routes); err != nil {
			return err
		}
		if there, err := state(v1); there != before || err != nil {
			t.Errorf("v1 has\n%s\nwant\n%s (%v)", there, before, err)
		}
		if err := move(v1, v0, addresses, routes); err != nil {
			return err
		}
		if after, err := state(v0); after != before || err != nil {
			t.Errorf("v0 has\n%s\nwant\n%s (%v)", after, before, err)
		}
		return nil
	}, "addr add 192.0.2.1/24 dev v0", "addr add 192.0.2.2/24 dev v0", "addr add 2001:db8::1/64 dev v0 nodad",
		"route add default via 192.0.2.9 dev v0", "-6 route add default via 2001:db8::9 dev v0 metric 9",
		"route add 10.0.0.0/8 nexthop via 192.0.2.9 dev v0 weight 2 nexthop via 192.0.2.8 dev v0")
}

func TestHostAddressAfter(t *testing.T) {
	a := hostAddress{Preferred: 50, Valid: 100}
	for _, c := range []struct {
		later            time.Duration
		preferred, valid uint32
		ok               bool
	}{
		{0, 50, 100, true}, {-time.Hour, 50, 100, true}, {60 * time.Second, 0, 40, true}, {100 * time.Second, 0, 0, false}, {1 << 62, 0, 0, false},
	} {
		got, ok := a.after(c.later)
		if ok != c.ok || ok && (got.Preferred != c.preferred || got.Valid != c.valid) {
			t.Errorf("after %v: %d, %d, %t", c.later, got.Preferred, got.Valid, ok)
		}
	}
	if got, ok := (hostAddress{Preferred: forever, Valid: forever}).after(1 << 62); !ok || got.Valid != forever || got.Preferred != forever {
		t.Error("what lasts for ever does not")
	}
}

// testWords are an IPv4 address as a kernel tells it.
func testWords() []byte {
	b := []byte{unix.AF_INET, 24, 0, 0, 7, 0, 0, 0}
	b = appendAttribute(b, unix.IFA_ADDRESS, []byte{192, 0, 2, 1})
	b = appendAttribute(b, unix.IFA_LOCAL, []byte{192, 0, 2, 1})
	b = appendAttribute(b, unix.IFA_LABEL, []byte("eth1:x\x00"))
	b = appendAttribute(b, unix.IFA_FLAGS, words32(unix.IFA_F_PERMANENT))
	return appendAttribute(b, unix.IFA_CACHEINFO, words32(50, 100, 1, 2))
}

func testRoute() []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[rtmTable], b[rtmType] = unix.AF_INET, unix.RT_TABLE_MAIN, unix.RTN_UNICAST
	b = appendAttribute(b, unix.RTA_GATEWAY, []byte{192, 0, 2, 9})
	return appendAttribute(b, unix.RTA_OIF, words32(7))
}

func TestUplinkFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), uplinkFile)
	a, _ := readAddress(testWords())
	g, _ := readRoute(testRoute())
	want := []uplinkRecord{{Port: "eth1", Bridge: "br0", Index: 7, MAC: "02:00:00:00:00:01", Boot: bootID(), Time: time.Unix(1, 0).UTC(),
		Addresses: []hostAddress{a}, Routes: []hostRoute{g.hostRoute}}}
	if err := writeUplinks(path, want); err != nil {
		t.Fatal(err)
	}
	got, err := readUplinks(path)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("read %v, %v\nwant %v", got, err, want)
	}
	if w := got[0].Addresses[0].wordsFor(9, "br0", "eth1", true); !bytes.Contains(w, []byte("br0:x\x00")) || w[4] != 9 {
		t.Errorf("label and index: % x", w)
	}
	if err := writeUplinks(path, nil); err != nil {
		t.Error(err)
	}
	if got, err := readUplinks(path); len(got) != 0 || err != nil {
		t.Errorf("read %v, %v of no file", got, err)
	}
}

// FuzzUplinkFile: whatever the file holds, what is believed of it can be said to a kernel.
func FuzzUplinkFile(f *testing.F) {
	a, _ := readAddress(testWords())
	g, _ := readRoute(testRoute())
	good, err := json.Marshal([]uplinkRecord{{Port: "eth1", Bridge: "br0", MAC: "02:00:00:00:00:01", Addresses: []hostAddress{a}, Routes: []hostRoute{g.hostRoute}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, []byte{})
	f.Add([]byte(`[{"port":"x","bridge":"y","addresses":[{"words":"AhgA"}]}]`), testWords())
	f.Add([]byte(`{}`), testRoute())
	f.Fuzz(func(t *testing.T, text, words []byte) {
		all, err := parseUplinks(text)
		if err == nil {
			for _, rec := range all {
				rec.mac()
				for i := range rec.Addresses {
					rec.Addresses[i].wordsFor(3, "br0", rec.Port, true)
					rec.Addresses[i].after(time.Hour)
				}
				for i := range rec.Routes {
					rec.Routes[i].isIPv4()
				}
			}
		}
		if a, ok := readAddress(words); ok {
			again, ok := readAddress(a.wordsFor(3, "br0", "eth1", false))
			if !ok || again.Prefix != a.Prefix || again.Valid != a.Valid || again.Preferred != a.Preferred {
				t.Fatalf("%+v was said as %+v, %t", a, again, ok)
			}
		}
		if x, ok := readRoute(words); ok {
			if w := x.wordsFor(7, 9); len(x.indexes) > 0 {
				if y, ok := readRoute(w); !ok || y.Text != x.Text || slices.Contains(y.indexes, 7) && !slices.Contains(y.indexes, 9) {
					t.Fatalf("%+v was said as %+v, %t", x, y, ok)
				}
			}
		}
	})
}

package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ports"
)

// uplinkRecord is what moved from a port's interface to the local port. It is on the disk
// before it moves: a local port goes with the daemon, however it goes, and its addresses
// with it.
type uplinkRecord struct {
	Port      string        `json:"port"`
	Bridge    string        `json:"bridge"`
	Index     int           `json:"index"` // the interface's, by which the routes' words go
	MAC       string        `json:"mac"`   // the interface's
	Boot      string        `json:"boot"`  // of the kernel: after another, the distribution has the say
	Time      time.Time     `json:"time"`  // when lifetimes were as they are written here
	Addresses []hostAddress `json:"addresses"`
	Routes    []hostRoute   `json:"routes"`
}

// uplinkFile is the file of them, in the state directory.
const uplinkFile = "uplinks.json"

// Bounds of what is believed of it.
const (
	maxUplinkFile = 4 << 20 // bytes
	maxUplinks    = 256
	maxUplinkWhat = 4096 // addresses of one, and routes
)

// missing is what an interface with these addresses and routes lacks of the record. One that got
// another address of the family meanwhile was set up anew, and lacks nothing of it; one that has
// some of the record's alone was left by a move that was cut short.
func (rec *uplinkRecord) missing(addresses []hostAddress, routes []hostRoute) (lost uplinkRecord) {
	among := func(all []hostAddress, a hostAddress) bool {
		return slices.ContainsFunc(all, func(b hostAddress) bool { return a.Prefix == b.Prefix })
	}
	anew := func(v4 bool) bool {
		return slices.ContainsFunc(addresses, func(a hostAddress) bool { return a.Prefix.Addr().Is4() == v4 && !among(rec.Addresses, a) })
	}
	for _, a := range rec.Addresses {
		if !among(addresses, a) && !anew(a.Prefix.Addr().Is4()) {
			lost.Addresses = append(lost.Addresses, a)
		}
	}
	for _, g := range rec.Routes {
		if !anew(g.isIPv4()) && !slices.ContainsFunc(routes, func(h hostRoute) bool { return g.key == h.key }) {
			lost.Routes = append(lost.Routes, g)
		}
	}
	return lost
}

func (rec *uplinkRecord) mac() net.HardwareAddr {
	m, err := net.ParseMAC(rec.MAC)
	if err != nil || len(m) != 6 {
		return nil
	}
	return m
}

// nicOf finds the interface that a record's addresses came from, under another name if somebody
// renamed it meanwhile.
func nicOf(rec *uplinkRecord) (ports.Link, error) {
	l, exists, err := ports.LinkByName(rec.Port)
	if err != nil || exists {
		return l, err
	}
	all, err := ports.Links()
	for _, l := range all {
		if l.Index == rec.Index && l.MAC.String() == rec.MAC {
			return l, nil
		}
	}
	return l, errors.Join(err, fmt.Errorf("interface %s does not exist", rec.Port))
}

// differs reports whether there is something new to write down.
func (rec *uplinkRecord) differs(old *uplinkRecord) bool {
	if len(rec.Addresses) != len(old.Addresses) || len(rec.Routes) != len(old.Routes) || rec.Bridge != old.Bridge {
		return true
	}
	const noise = 5 // seconds
	ends := func(rec *uplinkRecord, a hostAddress) int64 {
		if a.Valid == forever {
			return 1 << 62
		}
		return rec.Time.Unix() + int64(a.Valid)
	}
	for _, a := range rec.Addresses {
		i := slices.IndexFunc(old.Addresses, func(b hostAddress) bool { return a.Prefix == b.Prefix })
		if i < 0 {
			return true
		}
		if d := ends(rec, a) - ends(old, old.Addresses[i]); d > noise || d < -noise {
			return true
		}
	}
	for _, g := range rec.Routes {
		if !slices.ContainsFunc(old.Routes, func(h hostRoute) bool { return g.Text == h.Text }) {
			return true
		}
	}
	return false
}

// list is a record's addresses for people.
func (rec *uplinkRecord) list() string {
	var all []string
	for _, a := range rec.Addresses {
		all = append(all, a.Prefix.String())
	}
	return strings.Join(all, ", ")
}

// readUplinks reads the file; that there is none is no error.
func readUplinks(path string) ([]uplinkRecord, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxUplinkFile+1))
	if err != nil {
		return nil, err
	}
	return parseUplinks(b)
}

func parseUplinks(b []byte) ([]uplinkRecord, error) {
	if len(b) > maxUplinkFile {
		return nil, fmt.Errorf("longer than %d bytes", maxUplinkFile)
	}
	var all []uplinkRecord
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	if len(all) > maxUplinks {
		return nil, fmt.Errorf("%d uplinks; %d is the most", len(all), maxUplinks)
	}
	for i := range all {
		rec := &all[i]
		if !nameable(rec.Port) || !nameable(rec.Bridge) || len(rec.Addresses) > maxUplinkWhat || len(rec.Routes) > maxUplinkWhat {
			return nil, fmt.Errorf("uplink %d: its names or numbers make no sense", i+1)
		}
		for j := range rec.Addresses {
			a := &rec.Addresses[j]
			read, ok := readAddress(a.Words)
			if !ok {
				return nil, fmt.Errorf("uplink %s: address %d cannot be read", rec.Port, j+1)
			}
			a.Prefix, a.peer = read.Prefix, read.peer
		}
		for j := range rec.Routes {
			read, ok := readRoute(rec.Routes[j].Words)
			if !ok {
				return nil, fmt.Errorf("uplink %s: route %d cannot be read", rec.Port, j+1)
			}
			rec.Routes[j].key = read.key
		}
	}
	return all, nil
}

// writeUplinks returns when the file is on the disk. Without records there is none.
func writeUplinks(path string, all []uplinkRecord) error {
	if len(all) == 0 {
		err := os.Remove(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return errors.Join(err, syncDirectory(path))
	}
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	return syncDirectory(path)
}

func syncDirectory(path string) error {
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// bootID tells one run of the kernel from another.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// nameable reports whether an interface can have the name.
func nameable(s string) bool {
	return len(s) > 0 && len(s) < unix.IFNAMSIZ && !strings.ContainsAny(s, "/ \t\n\x00")
}

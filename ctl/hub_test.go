package ctl

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"vswitch/ctl/api"
	"vswitch/fdb"
	vswitch "vswitch/switch"
)

func TestHubCountsWhatASlowSubscriberMisses(t *testing.T) {
	h := newHub(slog.New(slog.DiscardHandler))
	slow, cancel := h.subscribe()
	defer cancel()
	const missed = 17
	for i := range subscriberQueue + missed {
		h.tell(api.Event{Kind: "config", Message: fmt.Sprint(i)})
	}
	fast, cancelFast := h.subscribe()
	defer cancelFast()
	for i := range subscriberQueue {
		if e := <-slow; e.Message != fmt.Sprint(i) || e.Time.IsZero() {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	h.tell(api.Event{Kind: "config", Message: "after"})
	if e := <-slow; e.Kind != "lost" || !strings.Contains(e.Message, fmt.Sprint(missed)+" events") {
		t.Errorf("after %d missed events came %+v", missed, e)
	}
	if e := <-slow; e.Message != "after" {
		t.Errorf("then came %+v", e)
	}
	if e := <-fast; e.Message != "after" {
		t.Errorf("another subscriber got %+v", e)
	}
	// Told once.
	h.tell(api.Event{Kind: "config", Message: "last"})
	if e := <-slow; e.Message != "last" {
		t.Errorf("then came %+v", e)
	}
}

// One place free is word of what was lost; the event that brought it is lost in
// turn, and counted.
func TestHubLosesNoCount(t *testing.T) {
	h := newHub(slog.New(slog.DiscardHandler))
	events, cancel := h.subscribe()
	defer cancel()
	told := 0
	tell := func(n int) {
		for range n {
			h.tell(api.Event{Kind: "config"})
			told++
		}
	}
	tell(subscriberQueue + 5)
	got, lost := 0, 0
	take := func(n int) {
		for range n {
			e := <-events
			var k int
			if e.Kind == "lost" {
				fmt.Sscan(e.Message, &k)
				lost += k
			} else {
				got++
			}
		}
	}
	for range 100 {
		take(1)
		tell(3)
	}
	take(len(events))
	tell(2) // and they bring word of the rest
	take(len(events))
	if got+lost != told {
		t.Errorf("%d events were told: %d came and %d were said to be lost", told, got, lost)
	}
}

func TestHubTellsNobody(t *testing.T) {
	h := newHub(slog.New(slog.DiscardHandler))
	h.mac(vswitch.Event{})
	if len(h.macs) != 0 {
		t.Error("a MAC event waits though nobody listens")
	}
	_, cancel := h.subscribe()
	cancel()
	cancel() // once is enough
	if n := h.listening.Load(); n != 0 || len(h.subscribers) != 0 {
		t.Errorf("after the only one left, %d listen and %d are kept", n, len(h.subscribers))
	}
}

func TestHubCountsLostMACs(t *testing.T) {
	h := newHub(slog.New(slog.DiscardHandler))
	events, cancel := h.subscribe()
	defer cancel()
	const missed = 9
	for range macQueue + missed { // nobody takes them out yet
		h.mac(vswitch.Event{Kind: fdb.EventNew, Bridge: "br0", Port: "p"})
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() { h.run(done); close(ended) }() // ended by done
	first := <-events
	if first.Kind != "lost" || !strings.Contains(first.Message, fmt.Sprint(missed)+" MAC events") {
		t.Errorf("first came %+v", first)
	}
	if e := <-events; e.Kind != "mac-learned" {
		t.Errorf("then came %+v", e)
	}
	close(done)
	<-ended
}

func TestMACEvents(t *testing.T) {
	e := vswitch.Event{Bridge: "br0", VLAN: 5, MAC: [6]byte{2, 0, 0, 0, 0, 1}, Port: "new", From: "old"}
	for kind, want := range map[fdb.EventKind][2]string{
		fdb.EventNew:     {"mac-learned", "02:00:00:00:00:01 in VLAN 5 learned on new"},
		fdb.EventMoved:   {"mac-moved", "02:00:00:00:00:01 in VLAN 5 moved from old to new"},
		fdb.EventAged:    {"mac-aged", "02:00:00:00:00:01 in VLAN 5 not heard on new for the aging time"},
		fdb.EventEvicted: {"mac-evicted", "02:00:00:00:00:01 in VLAN 5 on new gave way: the table is full"},
	} {
		e.Kind = kind
		got := macEvent(e)
		if got.Kind != want[0] || got.Message != want[1] || got.Bridge != "br0" || got.Port != "new" {
			t.Errorf("kind %v is told as %+v", kind, got)
		}
		if _, from := got.Detail["from"]; from != (kind == fdb.EventMoved) || got.Detail["mac"] != "02:00:00:00:00:01" {
			t.Errorf("kind %v has detail %v", kind, got.Detail)
		}
	}
}

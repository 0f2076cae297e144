package ctl

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/plug"
)

// TestPluggedDuringApply says what there is while an apply takes long: that of before, and
// what is to come as such. Nothing is waited for, once somebody has.
func TestPluggedDuringApply(t *testing.T) {
	parse := func(text string) config.Document {
		doc, err := config.Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return doc
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	book, _ := opened(t, t.TempDir()+"/plugs.db", t.TempDir())
	defer book.closed(t)
	d := &Daemon{log: log, reconciler: newReconciler(nil, nil, "0123456789abcdef", 1, log, func(api.Event) {})}
	d.plugs = &plugs{plugBook: book, keeper: plug.New(nil, book.leases, book.past, plug.Options{Log: log})}
	d.plugs.gateways = newGateways("0123456789abcdef", "", log, nil)
	d.plugs.portsSeen = recent{work: d.seePlugPorts, start: d.running.Go}
	rows := []api.PublishStatus{{Bridge: "br0", Host: "*:80/tcp"}}
	d.plugs.rulesMade = recent{start: d.running.Go, work: func() { // as gateways.apply, without a firewall
		d.reconciler.elsewhere()
		d.plugs.gateways.mu.Lock()
		defer d.plugs.gateways.mu.Unlock()
		d.plugs.gateways.published = rows
	}}
	defer d.running.Wait()

	const before = "bridges: [{name: br0, ip: 10.0.0.1/24, ports: [{name: p1, type: plug, container: netns:one, ip: 10.0.0.5/24}]}]"
	doc := parse(before)
	r := d.reconciler
	r.follows.Store(&following{doc, doc})
	r.ports["p1"] = &portState{bridge: "br0", port: *portOf(doc, "p1"), state: api.PortError, reason: "of before", link: noLink}
	list, err := d.Plugged(context.Background(), "br0")
	if err != nil || len(list) != 1 || list[0].State != api.PlugError || list[0].Reason != "of before" {
		t.Fatalf("%+v, %v", list, err)
	}
	if all, err := d.Published(context.Background(), "br0"); err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}

	r.mu.Lock() // an apply, until it is let go
	doc = parse(before[:len(before)-3] + ", {name: p2, type: plug, container: netns:two, ip: 10.0.0.6/24}]}]")
	r.follows.Store(&following{doc, doc})
	answered := make(chan string, 1)
	go func() {
		for range 20 { // a second each would be too long
			list, _ = d.Plugged(context.Background(), "br0")
			d.Published(context.Background(), "br0")
		}
		if len(list) != 2 || list[0].Reason != "of before" || list[1].State != api.PlugWaiting || !strings.Contains(list[1].Reason, "under way") {
			answered <- "during an apply: " + list[0].Reason + ", " + list[len(list)-1].Reason
		}
		answered <- ""
	}()
	select {
	case wrong := <-answered:
		if wrong != "" {
			t.Error(wrong)
		}
	case <-time.After(10 * time.Second):
		t.Error("who asks what there is waits for an apply")
	}
	r.ports["p1"].state, r.ports["p1"].reason = api.PortUp, ""
	r.mu.Unlock()
	for end := time.Now().Add(10 * time.Second); ; {
		if list, _ = d.Plugged(context.Background(), "br0"); list[0].State == api.PlugPlugged && !strings.Contains(list[1].Reason, "under way") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after the apply: %+v", list)
		}
	}
}

// TestRecent has each who asks be told what began after he asked, unless it takes long.
func TestRecent(t *testing.T) {
	var began, ended int
	var mu sync.Mutex
	var working sync.WaitGroup
	r := recent{start: working.Go, work: func() {
		mu.Lock()
		began++
		at := began
		mu.Unlock()
		time.Sleep(time.Millisecond) // so that many ask meanwhile
		mu.Lock()
		ended = at
		mu.Unlock()
	}}
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 50 {
				mu.Lock()
				before := began
				mu.Unlock()
				if !r.ask(10 * time.Second) {
					t.Error("it took longer than ten seconds")
				}
				mu.Lock()
				if ended <= before {
					t.Errorf("told of call %d, and call %d had begun before", ended, before)
				}
				mu.Unlock()
			}
		})
	}
	asking.Wait()
	working.Wait()
	if began > 400 {
		t.Errorf("%d calls for 400 questions", began)
	}
}

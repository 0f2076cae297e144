package ctl

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/plug"
	"vswitch/plug/held"
)

// TestAttachmentsOnce has all ports looked at once for a list, not once for each in it.
func TestAttachmentsOnce(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	book, _ := opened(t, t.TempDir()+"/plugs.db", t.TempDir())
	defer book.closed(t)
	d := &Daemon{log: log, reconciler: newReconciler(nil, nil, "0123456789abcdef", 1, log, func(api.Event) {})}
	d.plugs = &plugs{plugBook: book, keeper: plug.New(nil, book.leases, book.past, plug.Options{Log: log})}
	looks := 0
	d.plugs.portsSeen = recent{work: func() { looks++; d.seePlugPorts() }, start: d.running.Go}
	var put []held.Item
	for n := range 20 {
		p := config.Port{Name: fmt.Sprintf("p%d", n), Type: string(config.PlugPort), Options: config.Options{"container": fmt.Sprintf("netns:c%d", n), "ifname": "eth0"}}
		put = append(put, held.Item{Owner: "cni", Key: p.Name, Bridge: "br0", Ports: []config.Port{p}})
	}
	if err := book.held.Change(put, "", nil); err != nil {
		t.Fatal(err)
	}
	all, err := d.Attachments(context.Background(), "cni")
	d.running.Wait()
	if err != nil || len(all) != len(put) || looks != 1 {
		t.Errorf("%d attachments (%v) after %d looks", len(all), err, looks)
	}
}

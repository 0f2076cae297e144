package ctl

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ctl/store"
)

// TestStoreIsTold: what goes wrong with the store is an event; what goes well, or
// was asked wrongly, is none.
func TestStoreIsTold(t *testing.T) {
	dir := t.TempDir()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	d := &Daemon{store: st, hub: newHub(slog.New(slog.DiscardHandler))}
	events, cancel := d.hub.subscribe()
	defer cancel()
	told := func() (all []api.Event) {
		for {
			select {
			case e := <-events:
				all = append(all, e)
			default:
				return all
			}
		}
	}
	doc := config.Document{Bridges: []config.Bridge{{Name: "br0"}}}
	if v, err := d.put(doc, "test", store.PutOptions{}); v != 1 || err != nil {
		t.Fatalf("version %d, %v", v, err)
	}
	if _, err := d.get(7); !errors.Is(err, store.ErrNoVersion) {
		t.Errorf("version 7: %v", err)
	}
	if all := told(); len(all) > 0 {
		t.Errorf("told %+v", all)
	}
	// Where the text copy is written first stands a directory.
	if err := os.Mkdir(filepath.Join(dir, "desired.yaml.tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	doc.Bridges[0].Name = "br1"
	_, err = d.put(doc, "test", store.PutOptions{})
	all := told()
	if err == nil || len(all) != 1 || all[0].Kind != "store" || all[0].Message != err.Error() || !strings.Contains(all[0].Message, dir) {
		t.Errorf("%v was told as %+v", err, all)
	}
}

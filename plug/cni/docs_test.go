package cni

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// The page's example is read, and its tables have every key.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/cni.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "```json\n")
	example, _, end := strings.Cut(rest, "```")
	if !ok || !end {
		t.Fatal("there is no example")
	}
	var list struct {
		Version string `json:"cniVersion"`
		Name    string `json:"name"`
		Plugins []map[string]any
	}
	if err := json.Unmarshal([]byte(example), &list); err != nil {
		t.Fatal(err)
	}
	conf := list.Plugins[0]
	conf["cniVersion"], conf["name"] = list.Version, list.Name // as a runtime does
	raw, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := read(raw, ""); err != nil || w.bridge != "br0" {
		t.Errorf("the example: %v", err)
	}
	keys := []string{"bridge", "socket", "ipam"}
	for key := range ours {
		if key != "runtimeConfig" {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if !strings.Contains(string(text), "| `"+key+"` |") {
			t.Errorf("docs/cni.md has no row for %s", key)
		}
	}
}

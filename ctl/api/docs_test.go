package api

import (
	"log/slog"
	"os"
	"strings"
	"testing"
)

// docs/api.md names every endpoint with its parameters, and every kind of event.
func TestDocsNameEveryEndpoint(t *testing.T) {
	b, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	s := NewServer(nil, slog.New(slog.DiscardHandler), Limits{})
	for path, methods := range s.routes {
		for method, ep := range methods {
			at := strings.Index(page, "`"+method+" "+path+"`")
			if at < 0 {
				t.Errorf("docs/api.md does not name %s %s", method, path)
				continue
			}
			line, _, _ := strings.Cut(page[at:], "\n")
			for _, p := range ep.params {
				if !strings.Contains(line, p+"=") {
					t.Errorf("docs/api.md: %s %s does not name %s=", method, path, p)
				}
			}
		}
	}
	for _, k := range EventKinds {
		if !strings.Contains(page, k) {
			t.Errorf("docs/api.md does not name events of kind %s", k)
		}
	}
}

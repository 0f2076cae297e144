package filter

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestDocs compiles what the last columns of the tables in docs/filters.md show: whole
// filters, or lists of words that stand alone, are compared or are ports.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/filters.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "## The language")
	section, _, _ = strings.Cut(section, "## Tags")
	span := regexp.MustCompile("`([^`]+)`")
	found := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(line, "| \n"), " | ")
		if !strings.HasPrefix(line, "|") || len(cells) < 2 {
			continue
		}
		for _, m := range span.FindAllStringSubmatch(cells[len(cells)-1], -1) {
			found++
			if _, err := Compile(m[1]); err == nil {
				continue
			}
			for _, word := range strings.Fields(m[1]) {
				_, err := Compile(word)
				for _, as := range []string{word + " = len", "port " + word} {
					if err != nil {
						_, err = Compile(as)
					}
				}
				if err != nil {
					t.Errorf("%s: %v", m[1], err)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d filters found", found)
	}
}

// TestCapacity holds docs/filters.md to how many primitives of a kind fit.
func TestCapacity(t *testing.T) {
	for _, c := range []struct {
		head string
		n    int
	}{{"port ", 200}, {"tcp port ", 450}, {"host ", 300}, {"ip host ", 900}} {
		var ids []string
		for i := range c.n {
			if strings.HasSuffix(c.head, "port ") {
				ids = append(ids, strconv.Itoa(1000+i))
			} else {
				ids = append(ids, "10.0."+strconv.Itoa(i/250)+"."+strconv.Itoa(i%250))
			}
		}
		p, err := Compile(c.head + strings.Join(ids, " or "))
		if err != nil {
			t.Errorf("%d times %s: %v", c.n, c.head, err)
			continue
		}
		t.Logf("%d times %s: %d instructions", c.n, c.head, len(p.Instructions()))
	}
}

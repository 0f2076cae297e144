package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const testDocument = `bridges:
- name: br0
  ports:
  - {name: veth1, tag: 10}
  - {name: veth2, trunks: "10"}
`

// The verb needs no daemon: it records, agrees with what it recorded, and tells what
// went another way once the document is another.
func TestOffline(t *testing.T) {
	none := &cli{socket: filepath.Join(t.TempDir(), "none")}
	file := captureFile(t)
	dir := t.TempDir()
	doc, expect := filepath.Join(dir, "doc.yaml"), filepath.Join(dir, "expect.yaml")
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(doc, testDocument)
	code, out, errs := none.run("", "test", doc, file, "--expect", expect, "--record")
	if code != exitDone || !strings.Contains(out, "recorded what became of 1 frame") || !strings.Contains(out, "refused: frame 3: shorter") {
		t.Fatalf("record: exit %d\n%s%s", code, out, errs)
	}
	text, err := os.ReadFile(expect)
	if err != nil || !strings.Contains(string(text), "- {port: veth2, vlan: 10}") {
		t.Fatalf("recorded %s, %v", text, err)
	}
	if code, out, errs := none.run("", "test", doc, file, "--expect", expect); code != exitDone || !strings.Contains(out, "ok: 1 frame went as expected\n") {
		t.Fatalf("pass: exit %d\n%s%s", code, out, errs)
	}
	write(doc, strings.Replace(testDocument, "trunks: \"10\"", "tag: 20", 1))
	code, out, errs = none.run("", "test", doc, file, "--expect", expect)
	want := "  - leaves by veth2 tagged 10\n  + is dropped at veth1: no-output\n"
	if code != exitRefused || !strings.Contains(out, want) || !strings.HasPrefix(out, "frame 1, in by veth1: ") || !strings.Contains(errs, "1 difference from what ") {
		t.Fatalf("fail: exit %d\n%s%s", code, out, errs)
	}
	for _, line := range strings.Split(out, "\n") {
		if len([]rune(line)) > width {
			t.Errorf("too wide: %s", line)
		}
	}
	code, out, _ = none.run(testDocument, "test", "-", file, "--expect", expect, "--in-port", "veth2", "-o", "json")
	var r testResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitRefused || r.OK || r.Frames != 1 || len(r.Differences) != 1 {
		t.Errorf("json: exit %d, %v\n%s", code, err, out)
	}
}

func TestOfflineRefusals(t *testing.T) {
	none := &cli{socket: filepath.Join(t.TempDir(), "none")}
	file := captureFile(t)
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("frames: [{frame: 1, out: 5}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args, doc, want string
		code            int
	}{
		{"- " + file, testDocument, "--expect EXPECT is missing", exitUsage},
		{"- - --expect x", testDocument, "only once", exitUsage},
		{"- " + file + " --expect /does/not/exist", testDocument, "no such file", exitRefused},
		{"- " + file + " --expect " + bad, testDocument, "bad.yaml", exitRefused},
		{"- " + file + " --expect " + bad, "bridges: [{name: br0, tga: 5}]", "tga", exitRefused},
		{"- /dev/null --record --expect " + bad + ".new", testDocument, "capture file is empty", exitRefused},
	} {
		if code, _, errs := none.run(tc.doc, append([]string{"test"}, strings.Fields(tc.args)...)...); code != tc.code || !strings.Contains(errs, tc.want) {
			t.Errorf("test %s: exit %d, %s", tc.args, code, errs)
		}
	}
}

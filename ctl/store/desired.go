package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"vswitch/ctl/config"
)

// desired.yaml begins with comments that say what it is:
//
//	# The configuration of vswitchd, …
//	# version: 17
//	# time: 2026-11-21T01:02:03.004Z
//	# sha256: …, of all that follows this line
//	bridges: …

const desiredNote = `# The configuration of vswitchd, kept beside vswitch.db in case that is damaged.
# It is written anew at each change: change it with vswitchctl, not here.
`

// desiredYAML is the file for a version.
func desiredYAML(doc config.Document, e Entry) ([]byte, error) {
	body, err := doc.YAML()
	if err != nil {
		return nil, err
	}
	if len(body) > config.MaxDocument-1024 {
		return nil, fmt.Errorf("the document has %d bytes as YAML: want at most %d", len(body), config.MaxDocument-1024)
	}
	sum := sha256.Sum256(body)
	return fmt.Appendf(nil, "%s# version: %d\n# time: %s\n# sha256: %x\n%s",
		desiredNote, e.Version, e.Time.Format(time.RFC3339Nano), sum, body), nil
}

// desired is what was read back from desired.yaml.
type desired struct {
	entry   Entry
	doc     config.Document
	changed bool // by hand: the checksum does not match
}

// readDesired reads desired.yaml; the error wraps os.ErrNotExist when there is none.
func readDesired(path string) (desired, error) {
	f, err := os.Open(path)
	if err != nil {
		return desired{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, config.MaxDocument+1))
	if err != nil {
		return desired{}, err
	}
	d := desired{changed: true}
	body := string(text)
	for strings.HasPrefix(body, "#") {
		line, rest, _ := strings.Cut(body, "\n")
		body = rest
		key, value, _ := strings.Cut(strings.TrimPrefix(line, "# "), ": ")
		switch key {
		case "version":
			d.entry.Version, _ = strconv.ParseUint(value, 10, 63)
		case "time":
			d.entry.Time, _ = time.Parse(time.RFC3339Nano, value)
		case "sha256":
			sum := sha256.Sum256([]byte(body))
			d.changed = value != hex.EncodeToString(sum[:])
		}
	}
	if d.entry.Version == 0 {
		d.changed = true
	}
	if d.doc, err = config.Parse(text); err == nil {
		err = d.doc.Validate()
	}
	if err != nil {
		return desired{}, fmt.Errorf("%s cannot be used: %w", path, err)
	}
	return d, nil
}

// exists tells a missing file from one that cannot be looked at.
func exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

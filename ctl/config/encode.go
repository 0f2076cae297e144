package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Writing a document. Both forms are written in one order (name, type, options
// by name, then lists), so that equal documents are equal bytes. What is packet,
// empty or not set is left out.

// MarshalJSON writes the document in one line. Options have their types: see Typed.
func (d Document) MarshalJSON() ([]byte, error) {
	b := []byte(`{"bridges":[`)
	for i, br := range d.Bridges {
		b = br.appendJSON(comma(b, i))
	}
	b = append(b, ']')
	if len(d.Meshes) > 0 {
		b = append(b, `,"meshes":[`...)
		for i, m := range d.Meshes {
			b = m.appendJSON(comma(b, i))
		}
		b = append(b, ']')
	}
	return checkText(append(b, '}'))
}

// MarshalJSON writes the bridge as it stands in a document.
func (b Bridge) MarshalJSON() ([]byte, error) { return b.appendJSON(nil), nil }

// MarshalJSON writes the port as it stands in a document.
func (p Port) MarshalJSON() ([]byte, error) { return p.appendJSON(nil), nil }

// MarshalJSON writes the mirror as it stands in a document.
func (m Mirror) MarshalJSON() ([]byte, error) { return m.appendJSON(nil), nil }

// MarshalJSON writes the mesh as it stands in a document.
func (m Mesh) MarshalJSON() ([]byte, error) { return m.appendJSON(nil), nil }

// UnmarshalJSON is Parse.
func (d *Document) UnmarshalJSON(text []byte) error {
	parsed, err := Parse(text)
	if err == nil {
		*d = parsed
	}
	return err
}

// UnmarshalJSON reads option values of any JSON type, as somebody types them:
// they are not looked up yet. Null is the empty value, which unsets.
func (o *Options) UnmarshalJSON(text []byte) error {
	root, err := jsonTree(text)
	if err != nil {
		return err
	}
	if isNull(root) {
		*o = nil
		return nil
	}
	b := &builder{}
	f, ok := b.mapping(root, "options", "options")
	if ok {
		*o = make(Options, len(f.keys))
		for _, k := range f.keys {
			v := f.values[k.Value]
			if v.Kind == yaml.ScalarNode && (isNull(v) || v.Value == "") {
				(*o)[k.Value] = ""
				continue
			}
			value, e := scalarText(v)
			if e != nil {
				e.Path = "options." + k.Value
				b.add(e)
			}
			(*o)[k.Value] = value
		}
	}
	return b.err()
}

func comma(b []byte, i int) []byte {
	if i > 0 {
		return append(b, ',')
	}
	return b
}

func (b Bridge) appendJSON(out []byte) []byte {
	out = append(out, `{"name":`...)
	out = b.Options.appendJSON(appendQuoted(out, b.Name), false)
	if len(b.Ports) > 0 {
		out = append(out, `,"ports":[`...)
		for i, p := range b.Ports {
			out = p.appendJSON(comma(out, i))
		}
		out = append(out, ']')
	}
	if len(b.Mirrors) > 0 {
		out = append(out, `,"mirrors":[`...)
		for i, m := range b.Mirrors {
			out = m.appendJSON(comma(out, i))
		}
		out = append(out, ']')
	}
	if b.SFlow != nil {
		out = append(out, `,"sflow":{`...)
		out = append(b.SFlow.appendJSON(out, true), '}')
	}
	if len(b.FDB) > 0 {
		out = append(out, `,"fdb":[`...)
		for i, m := range b.FDB {
			out = append(comma(out, i), `{"mac":`...)
			out = appendQuoted(out, m.MAC)
			out = strconv.AppendInt(append(out, `,"vlan":`...), int64(m.VLAN), 10)
			out = append(appendQuoted(append(out, `,"port":`...), m.Port), '}')
		}
		out = append(out, ']')
	}
	return append(out, '}')
}

func (p Port) appendJSON(out []byte) []byte {
	out = appendQuoted(append(out, `{"name":`...), p.Name)
	if p.Object() != PacketPort {
		out = appendQuoted(append(out, `,"type":`...), p.Type)
	}
	return append(p.Options.appendJSON(out, false), '}')
}

func (m Mirror) appendJSON(out []byte) []byte {
	out = appendQuoted(append(out, `{"name":`...), m.Name)
	return append(m.Options.appendJSON(out, false), '}')
}

func (m Mesh) appendJSON(out []byte) []byte {
	out = appendQuoted(append(out, `{"name":`...), m.Name)
	return append(m.Options.appendJSON(out, false), '}')
}

// appendJSON writes options into an object: behind what stands there, or first.
func (o Options) appendJSON(out []byte, first bool) []byte {
	for i, name := range o.Names() {
		if i > 0 || !first {
			out = append(out, ',')
		}
		out = append(appendQuoted(out, name), ':')
		switch v := typed(name, o[name]).(type) {
		case int:
			out = strconv.AppendInt(out, int64(v), 10)
		case bool:
			out = strconv.AppendBool(out, v)
		case string:
			out = appendQuoted(out, v)
		}
	}
	return out
}

// YAML writes the document as `export` prints it. The error is text that is not
// UTF-8, which no document that was parsed or validated holds.
func (d Document) YAML() ([]byte, error) {
	y := &yamlWriter{b: []byte("bridges:\n")}
	if len(d.Bridges) == 0 {
		y.b = []byte("bridges: []\n")
	}
	for _, b := range d.Bridges {
		y.name(2, b.Name)
		y.options(4, b.Options)
		if len(b.Ports) > 0 {
			y.b = append(y.b, "    ports:\n"...)
		}
		for _, p := range b.Ports {
			y.name(6, p.Name)
			if p.Object() != PacketPort {
				y.field(8, "type", p.Type)
			}
			y.options(8, p.Options)
		}
		if len(b.Mirrors) > 0 {
			y.b = append(y.b, "    mirrors:\n"...)
		}
		for _, m := range b.Mirrors {
			y.name(6, m.Name)
			y.options(8, m.Options)
		}
		if b.SFlow != nil {
			y.b = append(y.b, "    sflow:\n"...)
			y.options(6, b.SFlow)
		}
		if len(b.FDB) > 0 {
			y.b = append(y.b, "    fdb:\n"...)
		}
		for _, m := range b.FDB {
			y.b = append(y.b, "      - mac: "...)
			y.b = append(appendQuoted(y.b, m.MAC), '\n')
			y.b = fmt.Appendf(y.b, "        vlan: %d\n", m.VLAN)
			y.field(8, "port", m.Port)
		}
	}
	if len(d.Meshes) > 0 {
		y.b = append(y.b, "meshes:\n"...)
	}
	for _, m := range d.Meshes {
		y.name(2, m.Name)
		y.options(4, m.Options)
	}
	return checkText(y.b)
}

// checkText refuses to write what could not be read again.
func checkText(text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return nil, errors.New("write document: it holds text that is not UTF-8")
	}
	return text, nil
}

type yamlWriter struct{ b []byte }

// name begins an entry of a list.
func (y *yamlWriter) name(indent int, name string) {
	y.b = append(y.b, "                "[:indent]...)
	y.b = append(y.b, "- name: "...)
	y.b = append(appendYAML(y.b, name), '\n')
}

func (y *yamlWriter) field(indent int, key, value string) {
	y.b = append(y.b, "                "[:indent]...)
	y.b = append(appendYAML(y.b, key), ": "...)
	y.b = append(appendYAML(y.b, value), '\n')
}

func (y *yamlWriter) options(indent int, o Options) {
	for _, name := range o.Names() {
		switch v := typed(name, o[name]).(type) {
		case string:
			y.field(indent, name, v)
		default:
			y.b = fmt.Appendf(y.b, "%*s%s: %v\n", indent, "", name, v)
		}
	}
}

// appendYAML writes a string plain where every YAML reader takes it for one, of
// version 1.1 too, and quoted elsewhere: "off", "10", "02:00:00:00:00:01".
func appendYAML(b []byte, s string) []byte {
	if isPlainWord(s) || isPlainPrefix(s) || isPlainSize(s) {
		return append(b, s...)
	}
	return appendQuoted(b, s)
}

func isPlainWord(s string) bool {
	for i, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_', c == '/':
		case i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.'):
		default:
			return false
		}
	}
	switch strings.ToLower(s) {
	case "", "y", "n", "yes", "no", "on", "off", "true", "false", "null":
		return false
	}
	return true
}

// isPlainPrefix takes one address with its prefix length: no number has a slash.
func isPlainPrefix(s string) bool {
	address, length, ok := strings.Cut(s, "/")
	if _, number := decimal(length); !ok || !number || address == "" || address[0] == ':' {
		return false
	}
	return !strings.ContainsFunc(address, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'f' || r == '.' || r == ':')
	})
}

// isPlainSize takes 10M: no number ends in a unit.
func isPlainSize(s string) bool {
	if s == "" || !strings.Contains(sizeUnits, s[len(s)-1:]) {
		return false
	}
	_, number := decimal(s[:len(s)-1])
	return number
}

// appendQuoted writes a string as JSON and YAML both read it: what cannot be
// printed is escaped.
func appendQuoted(b []byte, s string) []byte {
	b = append(b, '"')
	for size := 0; len(s) > 0; s = s[size:] {
		var r rune
		r, size = utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, s[0]) // not UTF-8: checkText says so
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case unicode.IsGraphic(r):
			b = utf8.AppendRune(b, r)
		case r < 0x10000:
			b = fmt.Appendf(b, `\u%04x`, r)
		default: // JSON has no other way than itself, and YAML takes it
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

var (
	_ json.Marshaler   = Document{}
	_ json.Unmarshaler = (*Document)(nil)
)

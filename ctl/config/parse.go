package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// Reading a document. YAML and JSON both become a tree of yaml.Node, whose
// scalars are the text as it was written. The table, not YAML, says what a
// scalar is: so `off`, 02:00:00:00:00:01 and 010 mean what a human meant, where
// YAML 1.1 would make them false, a number to base sixty, and eight.

// MaxDocument is the size of the largest document that is read, in bytes.
const MaxDocument = 16 << 20

const maxDepth = 8 // a document needs 6

// Parse reads a document, JSON or YAML, and returns it in canonical form. It
// judges the text, the names of keys and the value of each option; Validate
// judges what they mean together. The error is an *Error, or Errors, with lines.
func Parse(text []byte) (Document, error) {
	root, err := parseTree(text)
	if err != nil {
		return Document{}, err
	}
	b := &builder{}
	d := b.document(root)
	if err := b.err(); err != nil {
		return Document{}, err
	}
	d.sort()
	return d, nil
}

func parseTree(text []byte) (*yaml.Node, error) {
	if len(text) > MaxDocument {
		return nil, &Error{Message: fmt.Sprintf("the document has %d bytes: want at most %d", len(text), MaxDocument)}
	}
	text = bytes.TrimPrefix(text, []byte("\ufeff")) // some editors begin a file with a byte order mark
	if !utf8.Valid(text) {
		return nil, &Error{Message: "the document is not UTF-8"}
	}
	trimmed := bytes.TrimLeft(text, " \t\r\n")
	if len(trimmed) == 0 {
		return nil, emptyDocument()
	}
	if trimmed[0] != '{' {
		return yamlTree(text)
	}
	root, err := jsonTree(text)
	if err == nil || json.Valid(text) {
		return root, err
	}
	// {bridges: []} is YAML's flow style. When it is that neither, it was meant as JSON.
	if root, yamlErr := yamlTree(text); yamlErr == nil {
		return root, nil
	}
	return nil, err
}

// emptyDocument refuses a file that was cut to nothing: it would remove every bridge.
func emptyDocument() *Error {
	return &Error{Message: "the document is empty: write \"bridges: []\" to want no bridge"}
}

func yamlTree(text []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, emptyDocument()
	} else if err != nil {
		return nil, yamlError(err)
	}
	if err := dec.Decode(&second); err == nil {
		return nil, &Error{Line: second.Line, Message: "a second document begins here: want one document a file"}
	} else if !errors.Is(err, io.EOF) {
		return nil, yamlError(err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, emptyDocument()
	}
	if e := checkTree(doc.Content[0], maxDepth); e != nil {
		return nil, e
	}
	return doc.Content[0], nil
}

// yamlError takes the line out of the library's message.
func yamlError(err error) *Error {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	var line int
	if n, _ := fmt.Sscanf(message, "line %d:", &line); n == 1 {
		_, message, _ = strings.Cut(message, ": ")
	}
	return &Error{Line: line, Message: "the document is not YAML: " + message}
}

// checkTree refuses what a document has no use for: aliases, which let a small
// text stand for a large one, and tags.
func checkTree(n *yaml.Node, depth int) *Error {
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return &Error{Line: n.Line, Message: "anchors and aliases are not supported: write the value out"}
	case n.Style&yaml.TaggedStyle != 0:
		return &Error{Line: n.Line, Value: n.Tag, Message: fmt.Sprintf("tags such as %s are not supported", shown(n.Tag))}
	case depth == 0:
		return &Error{Line: n.Line, Message: "lists and mappings are nested deeper than any document needs"}
	}
	for _, c := range n.Content {
		if e := checkTree(c, depth-1); e != nil {
			return e
		}
	}
	return nil
}

// jsonTree reads JSON token by token, since a decoder into maps would hide keys
// that are written twice, and numbers as they were written.
func jsonTree(text []byte) (*yaml.Node, error) {
	r := &jsonReader{text: text, dec: json.NewDecoder(bytes.NewReader(text)), line: 1}
	r.dec.UseNumber()
	root, e := r.value(maxDepth)
	if e != nil {
		return nil, e
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, &Error{Line: r.at(), Message: "there is more after the document: want one document a file"}
	}
	return root, nil
}

type jsonReader struct {
	text []byte
	dec  *json.Decoder
	line int // of offset
	seen int // offset up to which lines were counted
}

// at is the line the decoder has come to.
func (r *jsonReader) at() int {
	now := min(int(r.dec.InputOffset()), len(r.text))
	r.line += bytes.Count(r.text[r.seen:now], []byte("\n"))
	r.seen = now
	return r.line
}

func (r *jsonReader) fail(err error) *Error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Error{Line: r.at(), Message: "the document is not JSON: it ends too early"}
	}
	return &Error{Line: r.at(), Message: "the document is not JSON: " + strings.TrimPrefix(err.Error(), "json: ")}
}

func (r *jsonReader) value(depth int) (*yaml.Node, *Error) {
	token, err := r.dec.Token()
	if err != nil {
		return nil, r.fail(err)
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: r.at()}
	switch t := token.(type) {
	case string:
		n.Value, n.Tag = t, "!!str"
	case json.Number:
		n.Value, n.Tag = t.String(), "!!int"
	case bool:
		n.Value, n.Tag = fmt.Sprint(t), "!!bool"
	case nil:
		n.Tag = "!!null"
	case json.Delim:
		if depth == 1 {
			return nil, &Error{Line: n.Line, Message: "lists and mappings are nested deeper than any document needs"}
		}
		n.Kind = yaml.MappingNode
		if t == '[' {
			n.Kind = yaml.SequenceNode
		}
		for r.dec.More() {
			// An object's keys are strings: the decoder sees to it.
			c, e := r.value(depth - 1)
			if e != nil {
				return nil, e
			}
			n.Content = append(n.Content, c)
		}
		if _, err := r.dec.Token(); err != nil {
			return nil, r.fail(err)
		}
	}
	return n, nil
}

package config

import (
	"fmt"
	"strings"
)

// Error is one thing that is wrong with a document or an edit. Message is a
// whole sentence and is all a reader needs beside Path; Value and Allowed repeat
// its parts for programs.
type Error struct {
	Path    string // such as bridges[br0].ports[veth1].tag; empty for the document itself
	Value   string // what was given, where a value is at fault
	Allowed string // what would be right, where that can be said
	Message string // lower case, no full stop
	Line    int    // in the text that was parsed, counted from 1; 0 when there is none
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.Line > 0 {
		fmt.Fprintf(&b, "line %d: ", e.Line)
	}
	if e.Path != "" {
		b.WriteString(e.Path)
		b.WriteString(": ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors are two and more things that are wrong, in the order of the document.
// errors.As finds the first *Error in them.
type Errors []*Error

// maxErrors bounds a report: more than this nobody reads.
const maxErrors = 20

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap lets errors.Is and errors.As look into each error.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, one := range e {
		list[i] = one
	}
	return list
}

// report gathers errors up to maxErrors and counts the rest.
type report struct {
	errs Errors
	more int
}

func (r *report) add(e *Error) {
	if len(r.errs) >= maxErrors {
		r.more++
		return
	}
	r.errs = append(r.errs, e)
}

// full says that more errors would only be counted, and counts one: it spares
// hostile input the search for what is near.
func (r *report) full() bool {
	if len(r.errs) < maxErrors {
		return false
	}
	r.more++
	return true
}

func (r *report) addf(path, format string, args ...any) {
	r.add(&Error{Path: path, Message: fmt.Sprintf(format, args...)})
}

// err is nil, the one *Error, or Errors.
func (r *report) err() error {
	switch {
	case len(r.errs) == 0:
		return nil
	case len(r.errs) == 1:
		return r.errs[0]
	case r.more > 0:
		return append(r.errs, &Error{Message: fmt.Sprintf("and %d more like these", r.more)})
	}
	return r.errs
}

// shown is a value as a message quotes it: escaped, and cut when it is long.
func shown(s string) string {
	const limit = 80
	if len(s) > limit {
		return fmt.Sprintf("%q and %d bytes more", strings.ToValidUTF8(s[:limit], ""), len(s)-limit)
	}
	return fmt.Sprintf("%q", s)
}

// orList joins words as a sentence does: a, b or c.
func orList(words []string) string { return joinList(words, " or ") }

func andList(words []string) string { return joinList(words, " and ") }

func joinList(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + last + words[n]
}

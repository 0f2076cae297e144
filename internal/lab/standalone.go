package lab

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// T is what a lab needs of the test it belongs to. testing.TB satisfies it, and so
// does a Standalone.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any) // goes on
	Fatal(args ...any)                 // does not return
	Fatalf(format string, args ...any) // does not return
	Skip(args ...any)                  // does not return
	Failed() bool
	Cleanup(func())
}

// Standalone is a T outside of tests: a command's. What would end a test ends the
// function given to Try, as an error:
//
//	s := &lab.Standalone{Log: os.Stderr}
//	defer func() { err = errors.Join(err, s.Close()) }()
//	err = s.Try(func() error {
//		l := lab.New(s)
//		…
//	})
//
// What a lab is asked to do must happen inside Try, or a failure panics.
//
// Thread-safety: safe for concurrent use; a lab's failure ends the Try of the
// goroutine that it happened on.
type Standalone struct {
	Log io.Writer // of Logf; nil is nowhere

	mu     sync.Mutex
	errs   []error  // of Errorf, since Close
	failed bool     // ever
	ends   []func() // of Cleanup
}

var _ T = (*Standalone)(nil)

// fatal carries an error from Fatalf to Try.
type fatal struct{ err error }

func (f fatal) String() string { return fmt.Sprintf("outside of Try: %v", f.err) }

// Try calls f and returns its error, or that of the Fatal, Fatalf or Skip that ended
// it. Try may be called inside Try.
func (s *Standalone) Try(f func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case fatal:
			err = r.err
		default:
			panic(r)
		}
	}()
	return f()
}

// Close runs what Cleanup was given, the last one first, and returns what Errorf and
// the cleaning up had to say. The Standalone can be used again.
func (s *Standalone) Close() error {
	for {
		s.mu.Lock()
		if len(s.ends) == 0 {
			err := errors.Join(s.errs...)
			s.errs = nil
			s.mu.Unlock()
			return err
		}
		end := s.ends[len(s.ends)-1]
		s.ends = slices.Delete(s.ends, len(s.ends)-1, len(s.ends))
		s.mu.Unlock()
		if err := s.Try(func() error { end(); return nil }); err != nil {
			s.Errorf("%v", err)
		}
	}
}

// Cleanup makes Close call f.
func (s *Standalone) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ends = append(s.ends, f)
}

// Errorf keeps an error for Close.
func (s *Standalone) Errorf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

// Fatalf ends Try with an error.
func (s *Standalone) Fatalf(format string, args ...any) { s.end(fmt.Errorf(format, args...)) }

// Fatal is Fatalf as fmt.Sprint has it; an error alone stays what it is.
func (s *Standalone) Fatal(args ...any) { s.end(asError(args)) }

// Skip is Fatal: a command that cannot do its work has failed.
func (s *Standalone) Skip(args ...any) { s.end(asError(args)) }

func asError(args []any) error {
	if len(args) == 1 {
		if err, ok := args[0].(error); ok {
			return err
		}
	}
	return errors.New(fmt.Sprint(args...))
}

func (s *Standalone) end(err error) {
	s.mu.Lock()
	s.failed = true
	s.mu.Unlock()
	panic(fatal{err})
}

// Failed tells whether anything has failed so far.
func (s *Standalone) Failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Logf writes a line to Log.
func (s *Standalone) Logf(format string, args ...any) {
	if s.Log != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintf(s.Log, format+"\n", args...)
	}
}

// Helper does nothing: a command has no lines of a test to tell.
func (s *Standalone) Helper() {}

package apitest

import (
	"context"
	"sync"

	"vswitch/ctl/api"
)

// Captures is the capturing part of Service.
type Captures struct {
	// Seen is what captures and dumps show, each frame once.
	Seen []api.CapturedFrame
	// CaptureEnd ends a capture once it has shown Seen, if it is not nil.
	CaptureEnd error
	Rec        api.RecorderStatus

	open sync.WaitGroup
}

// WaitCaptures waits until all captures are closed.
func (c *Captures) WaitCaptures() { c.open.Wait() }

// Capture shows Seen, and is then silent.
func (s *Service) Capture(_ context.Context, q api.CaptureQuery) (api.Capture, error) {
	if err := s.ask(q); err != nil {
		return nil, err
	}
	s.open.Add(1)
	return &seen{service: s, of: of(q.Bridge, q.Port, q.Name)}, nil
}

func (s *Service) Recorder(context.Context) (api.RecorderStatus, error) {
	return s.Rec, s.ask(Call{Method: "Recorder"})
}

// RecorderDump shows Seen.
func (s *Service) RecorderDump(_ context.Context, q api.DumpQuery, begin func(string) error, each func(*api.CapturedFrame) error) error {
	if err := s.ask(q); err != nil {
		return err
	}
	if err := begin(of(q.Bridge, q.Port, q.Name)); err != nil {
		return err
	}
	for i := range s.Seen {
		f := s.Seen[i]
		if err := each(&f); err != nil {
			return err
		}
	}
	return nil
}

func of(bridge, port, name string) string {
	switch {
	case port != "":
		return "port " + port
	case bridge != "":
		return "bridge " + bridge
	case name != "":
		return "bridge " + name
	}
	return "all bridges"
}

// seen is a capture of what a test put into Seen.
type seen struct {
	service *Service
	of      string
	at      int
	once    sync.Once
}

func (c *seen) Of() string { return c.of }

func (c *seen) Read(each func(*api.CapturedFrame)) error {
	for ; c.at < len(c.service.Seen); c.at++ {
		f := c.service.Seen[c.at]
		each(&f)
	}
	return c.service.CaptureEnd
}

func (c *seen) End() {}

func (c *seen) Close() { c.once.Do(c.service.open.Done) }

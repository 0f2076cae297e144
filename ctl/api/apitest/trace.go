package apitest

import (
	"context"
	"io"

	"vswitch/ctl/api"
)

// Traces is the tracing and replaying part of Service. Set it before it serves.
type Traces struct {
	Trace    api.Trace
	Live     []api.Trace // what a live trace shows
	LiveEnd  api.TraceEnd
	Replayed api.ReplayResult
	Progress []api.ReplayResult // that a replay tells on its way
}

// Replay is a call of Service.Replay, and the file that came with it.
type Replay struct {
	api.ReplayQuery
	File string
}

func (s *Service) Trace(_ context.Context, r api.TraceRequest) (api.Trace, error) {
	return s.Tr.Trace, s.ask(r)
}

// TraceLive shows Tr.Live.
func (s *Service) TraceLive(_ context.Context, q api.TraceQuery, begin func() error, each func(*api.Trace) error) (api.TraceEnd, error) {
	if err := s.ask(q); err != nil {
		return api.TraceEnd{}, err
	}
	if err := begin(); err != nil {
		return api.TraceEnd{}, err
	}
	for i := range s.Tr.Live {
		if err := each(&s.Tr.Live[i]); err != nil {
			return s.Tr.LiveEnd, err
		}
	}
	return s.Tr.LiveEnd, nil
}

// Replay reads the whole file.
func (s *Service) Replay(_ context.Context, q api.ReplayQuery, file io.Reader, tell func(api.ReplayResult)) (api.ReplayResult, error) {
	b, err := io.ReadAll(file)
	if err != nil {
		return api.ReplayResult{}, err
	}
	for _, p := range s.Tr.Progress {
		tell(p)
	}
	return s.Tr.Replayed, s.ask(Replay{q, string(b)})
}

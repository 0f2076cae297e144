package apitest

import (
	"context"

	"vswitch/ctl/api"
)

// Probes is what a Service answers of paths, and when it is asked what is wrong. Set
// it before it serves.
type Probes struct {
	Path   api.Path
	Doctor api.Doctor
}

func (s *Service) Path(_ context.Context, q api.PathQuery) (api.Path, error) {
	return s.P.Path, s.ask(q)
}

func (s *Service) Doctor(_ context.Context, q api.DoctorQuery) (api.Doctor, error) {
	return s.P.Doctor, s.ask(q)
}

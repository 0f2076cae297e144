package apitest

import (
	"context"

	"vswitch/ctl/api"
)

// Why is what a Service answers of addresses and talkers. Set it before it serves.
type Why struct {
	Why     api.Why
	Talkers api.Talkers
}

func (s *Service) Why(_ context.Context, q api.WhyQuery) (api.Why, error) {
	return s.Y.Why, s.ask(q)
}

func (s *Service) Talkers(_ context.Context, q api.TalkersQuery) (api.Talkers, error) {
	return s.Y.Talkers, s.ask(q)
}

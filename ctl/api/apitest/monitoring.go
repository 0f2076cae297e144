package apitest

import (
	"context"

	"vswitch/ctl/api"
)

// Monitoring is the monitoring part of Service.
type Monitoring struct {
	SF []api.SFlowStatus
	LL api.LogStatus
}

func (s *Service) SFlow(_ context.Context, bridge string) ([]api.SFlowStatus, error) {
	if err := s.ask(Call{Method: "SFlow", Bridge: bridge}); err != nil {
		return nil, err
	}
	var out []api.SFlowStatus
	for _, x := range s.SF {
		if bridge == "" || bridge == x.Bridge {
			out = append(out, x)
		}
	}
	return out, s.known(bridge)
}

func (s *Service) LogLevel(context.Context) (api.LogStatus, error) {
	return s.LL, s.ask(Call{Method: "LogLevel"})
}

func (s *Service) SetLogLevel(_ context.Context, c api.LogChange) (api.LogStatus, error) {
	return s.LL, s.ask(c)
}

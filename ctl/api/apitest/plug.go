package apitest

import (
	"context"

	"vswitch/ctl/api"
)

// Plugs is the plugs' part of Service.
type Plugs struct {
	PlugAnswer   api.PlugResult
	UnplugAnswer api.UnplugResult
	PL           []api.PlugStatus
	PB           []api.PublishStatus
	LS           []api.LeaseStatus
	AttachAnswer api.Attached
	AT           []api.Attached
	CO           api.Collected
}

func (s *Service) Plug(_ context.Context, q api.PlugRequest) (api.PlugResult, error) {
	return s.PlugAnswer, s.ask(q)
}

func (s *Service) Unplug(_ context.Context, q api.UnplugRequest) (api.UnplugResult, error) {
	return s.UnplugAnswer, s.ask(q)
}

func (s *Service) Plugged(_ context.Context, bridge string) ([]api.PlugStatus, error) {
	return s.PL, s.ask(Call{Method: "Plugged", Bridge: bridge})
}

func (s *Service) Published(_ context.Context, bridge string) ([]api.PublishStatus, error) {
	return s.PB, s.ask(Call{Method: "Published", Bridge: bridge})
}

func (s *Service) Leases(_ context.Context, bridge string) ([]api.LeaseStatus, error) {
	return s.LS, s.ask(Call{Method: "Leases", Bridge: bridge})
}

func (s *Service) Attach(_ context.Context, q api.Attachment) (api.Attached, error) {
	return s.AttachAnswer, s.ask(q)
}

// Detached is a call of Detach.
type Detached struct{ Owner, Key string }

func (s *Service) Detach(_ context.Context, owner, key string) error {
	return s.ask(Detached{owner, key})
}

func (s *Service) Attachments(_ context.Context, owner string) ([]api.Attached, error) {
	return s.AT, s.ask(Call{Method: "Attachments"})
}

func (s *Service) CollectAttachments(_ context.Context, q api.Collect) (api.Collected, error) {
	return s.CO, s.ask(q)
}

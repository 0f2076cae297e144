package api

// WhyService is the part of Service that this file serves.
type WhyService interface{}

// whyEndpoints is this file's part of endpoints.
func (s *Server) whyEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{}
}

package api

// CaptureService is the part of Service that this file serves.
type CaptureService interface{}

// captureEndpoints is this file's part of endpoints.
func (s *Server) captureEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{}
}

package api

// TraceService is the part of Service that this file serves.
type TraceService interface{}

// traceEndpoints is this file's part of endpoints.
func (s *Server) traceEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{}
}

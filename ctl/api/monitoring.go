package api

// MonitoringService is the part of Service that this file serves.
type MonitoringService interface{}

// monitoringEndpoints is this file's part of endpoints.
func (s *Server) monitoringEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{}
}

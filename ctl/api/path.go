package api

// PathService is the part of Service that this file serves.
type PathService interface{}

// pathEndpoints is this file's part of endpoints.
func (s *Server) pathEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{}
}

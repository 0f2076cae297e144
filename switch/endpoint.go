package vswitch

import "fmt"

// AddEndpoint begins to read an endpoint: queue i by worker i, modulo their number.
// The endpoint stays the caller's to close, after DelEndpoint.
func (s *Switch) AddEndpoint(e Endpoint) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.endpoints[e]; ok {
		return fmt.Errorf("add endpoint: %w", ErrExist)
	}
	var queues []assigned
	for q := range e.Queues() {
		w := q % len(s.workers)
		rx := &rxQueue{from: e, many: true, index: q}
		if err := s.assignLocked(w, rx); err != nil {
			s.unassignLocked(queues)
			return fmt.Errorf("add endpoint: watch its queue %d: %w", q, err)
		}
		queues = append(queues, assigned{w, rx})
	}
	s.endpoints[e] = queues
	return nil
}

// DelEndpoint ends that: when it returns no worker uses the endpoint. Its ports
// must have been detached.
func (s *Switch) DelEndpoint(e Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unassignLocked(s.endpoints[e])
	delete(s.endpoints, e)
}

// groupLocked returns the number of a split-horizon group; 0 for none.
func (s *Switch) groupLocked(name string) int {
	if name == "" {
		return 0
	}
	if s.groups[name] == 0 {
		s.groups[name] = len(s.groups) + 1
	}
	return s.groups[name]
}

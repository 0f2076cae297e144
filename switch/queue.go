package vswitch

import "fmt"

// AddQueue reads one more queue of a port's device, by the worker that reads its
// first one: the next number after those that are read.
func (s *Switch) AddQueue(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil || len(p.queues) == 0 {
		return fmt.Errorf("add a queue to port %s: %w", name, ErrNotExist)
	}
	w := p.queues[0].worker
	rx := &rxQueue{port: p.id, from: p.device, index: len(p.queues)}
	if err := s.assignLocked(w, rx); err != nil {
		return fmt.Errorf("add a queue to port %s: watch it: %w", name, err)
	}
	p.queues = append(p.queues, assigned{w, rx})
	return nil
}

// Received returns how many frames and bytes came in by a port.
func (s *Switch) Received(name string) (frames, bytes uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.ports[name]; p != nil {
		for i := range p.counters {
			frames += p.counters[i].rxFrames.Load()
			bytes += p.counters[i].rxBytes.Load()
		}
	}
	return frames, bytes
}

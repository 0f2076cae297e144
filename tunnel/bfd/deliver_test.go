package bfd

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Close tells the other end once, and nobody is called after it, however many
// close, and whatever comes in meanwhile.
func TestClose(t *testing.T) {
	for _, up := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFar(t, Config{})
			if up {
				f.up()
			}
			f.take()
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(f.s.Close)
				wg.Go(func() { f.s.Receive(f.says(Down).Append(nil)) })
			}
			wg.Wait()
			down := 0
			all := f.take()
			for i, p := range all {
				if p.State == AdminDown {
					down++
					if i != len(all)-1 || p.Diag != DiagAdminDown {
						t.Errorf("packets of closing: %+v", all)
					}
				}
			}
			if down != 1 {
				t.Errorf("%d packets say admin_down, want 1: %+v", down, all)
			}
			told := len(f.states())
			f.s.Close()
			f.s.SetConfig(Config{MinTx: time.Minute})
			time.Sleep(time.Hour)
			if err := f.s.Receive(f.says(Down).Append(nil)); err != ErrClosed {
				t.Errorf("receive after close: %v", err)
			}
			synctest.Wait()
			if got := f.take(); len(got) != 0 || len(f.states()) != told {
				t.Errorf("after close: sent %+v, told of %v", got, f.states())
			}
		})
	}
}

// Close waits for a Notify and a Send that are running, and for nothing else.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inside atomic.Int32
		slow := func() {
			inside.Add(1)
			time.Sleep(10 * time.Second)
			inside.Add(-1)
		}
		s := New(Config{Send: func([]byte) { slow() }, Notify: func(Status) { slow() }})
		time.Sleep(time.Second)
		p := Packet{State: Down, Multiplier: 3, MyDiscr: 1}
		if err := s.Receive(p.Append(nil)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if inside.Load() != 2 {
			t.Fatalf("%d calls are running, want 2", inside.Load())
		}
		s.Close()
		if inside.Load() != 0 {
			t.Errorf("%d calls are running after close", inside.Load())
		}
	})
}

// Neither is called concurrently with itself; both may use the session; and one
// that blocks holds up neither the other nor Receive nor the detection of silence.
func TestCallsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Session
		var sending, notifying, sends atomic.Int32
		var mu sync.Mutex
		var seen []Status
		stuck, made := make(chan struct{}), make(chan struct{})
		s = New(Config{
			MinTx: 100 * time.Millisecond,
			Send: func([]byte) {
				<-made
				if sending.Add(1) != 1 {
					t.Error("two Sends at once")
				}
				sends.Add(1)
				time.Sleep(time.Millisecond) // lets others in
				s.Status()
				s.SetConfig(Config{MinTx: 100 * time.Millisecond})
				sending.Add(-1)
			},
			Notify: func(n Status) {
				if notifying.Add(1) != 1 {
					t.Error("two Notifies at once")
				}
				<-stuck
				s.Status()
				mu.Lock()
				seen = append(seen, n)
				mu.Unlock()
				notifying.Add(-1)
			},
		})
		close(made)
		defer s.Close()
		time.Sleep(time.Second)
		p := Packet{Multiplier: 3, MyDiscr: 1, DesiredMinTx: 100 * time.Millisecond, RequiredMinRx: 100 * time.Millisecond}
		hear := func(state State) {
			p.State, p.YourDiscr = state, s.discr
			if err := s.Receive(p.Append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		const flaps = 40
		for range flaps {
			hear(Down)
			hear(Up)
			hear(Down)
			synctest.Wait()
		}
		hear(Init)
		before := sends.Load()
		time.Sleep(time.Second)
		if got := sends.Load() - before; got < 9 {
			t.Errorf("%d packets in a second while Notify is stuck", got)
		}
		time.Sleep(time.Minute)
		if got := s.Status(); got.State != Down || got.Diag != DiagExpired {
			t.Errorf("silence while Notify is stuck: %+v", got)
		}
		close(stuck)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if len(seen) < maxNotes || len(seen) > maxNotes+1 {
			t.Errorf("told of %d changes, want %d and the one that was stuck", len(seen), maxNotes)
		}
		for i := 1; i < len(seen); i++ {
			if seen[i].Flaps < seen[i-1].Flaps || seen[i].RxPackets < seen[i-1].RxPackets {
				t.Errorf("told of %+v after %+v", seen[i], seen[i-1])
			}
		}
		if last := seen[len(seen)-1]; last.State != Down || last.Diag != DiagExpired || last.Flaps != flaps+1 {
			t.Errorf("told last of %+v", last)
		}
	})
}

// A Send that blocks holds up neither Receive nor the detection of silence, and
// does not keep the timer busy.
func TestStuckSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make(chan struct{})
		s := New(Config{Send: func([]byte) { <-stuck }})
		p := Packet{State: Down, Multiplier: 3, MyDiscr: 1}
		if err := s.Receive(p.Append(nil)); err != nil {
			t.Fatal(err)
		}
		if got := s.Status().State; got != Init {
			t.Errorf("%v, want init", got)
		}
		time.Sleep(time.Hour)
		if got := s.Status(); got.State != Down || got.TxPackets != 1 {
			t.Errorf("after an hour: %+v", got)
		}
		close(stuck)
		s.Close()
	})
}

// Everything at once, on the real clock, for the race detector.
func TestRace(t *testing.T) {
	var ends [2]*Session
	var ready sync.WaitGroup
	ready.Add(1)
	for i := range ends {
		ends[i] = New(Config{MinRx: 10 * time.Millisecond, MinTx: 10 * time.Millisecond,
			Send:   func(b []byte) { ready.Wait(); ends[1-i].Receive(b) },
			Notify: func(Status) { ends[i].Status() },
		})
	}
	ready.Done()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 200 {
				e := ends[(i+n)%2]
				e.SetConfig(Config{MinTx: time.Duration(10+n%20) * time.Millisecond})
				e.Receive(Packet{State: State(n & 1), Multiplier: 1, MyDiscr: uint32(i + 1)}.Append(nil))
				e.Status()
			}
		})
	}
	wg.Wait()
	for _, e := range ends {
		for range 2 {
			wg.Go(e.Close)
		}
	}
	wg.Wait()
}

// What a packet costs that tells nothing new.
func BenchmarkReceive(b *testing.B) {
	s := New(Config{Send: func([]byte) {}})
	defer s.Close()
	for _, state := range []State{Down, Up} {
		s.Receive(Packet{State: state, Multiplier: 3, MyDiscr: 1, YourDiscr: s.discr, RequiredMinRx: time.Second}.Append(nil))
	}
	p := Packet{State: Up, Multiplier: 3, MyDiscr: 1, YourDiscr: s.discr, RequiredMinRx: time.Second}.Append(nil)
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Receive(p); err != nil {
			b.Fatal(err)
		}
	}
}

// What one interval of a session that is up costs: the timer and the packet.
func BenchmarkTransmit(b *testing.B) {
	s := New(Config{Send: func([]byte) {}})
	defer s.Close()
	b.ReportAllocs()
	for b.Loop() {
		s.mu.Lock()
		s.nextTx = time.Now()
		s.mu.Unlock()
		s.tick()
	}
}

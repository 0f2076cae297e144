package bfd

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// RFC 5880 section 6.8.6, and the drawing in doc.go.
var transitions = []struct{ local, received, next State }{
	{AdminDown, AdminDown, AdminDown}, {AdminDown, Down, AdminDown}, {AdminDown, Init, AdminDown}, {AdminDown, Up, AdminDown},
	{Down, AdminDown, Down}, {Down, Down, Init}, {Down, Init, Up}, {Down, Up, Down},
	{Init, AdminDown, Down}, {Init, Down, Init}, {Init, Init, Up}, {Init, Up, Up},
	{Up, AdminDown, Down}, {Up, Down, Down}, {Up, Init, Up}, {Up, Up, Up},
}

func TestStateMachine(t *testing.T) {
	for _, c := range transitions {
		if got := nextState(c.local, c.received); got != c.next {
			t.Errorf("%v receives %v: %v, want %v", c.local, c.received, got, c.next)
		}
		synctest.Test(t, func(t *testing.T) {
			f := newFar(t, Config{})
			switch c.local {
			case AdminDown:
				f.s.Close()
				if err := f.s.Receive(f.says(c.received).Append(nil)); err != ErrClosed {
					t.Errorf("closed session receives %v: %v", c.received, err)
				}
				if got := f.s.Status(); got.State != AdminDown || got.Diag != DiagAdminDown {
					t.Errorf("closed session is %v, %v", got.State, got.Diag)
				}
				return
			case Init:
				f.hears(f.says(Down))
			case Up:
				f.up()
			}
			defer f.s.Close()
			f.mu.Lock()
			f.notes = nil
			f.mu.Unlock()
			answers := f.hears(f.says(c.received))
			got := f.s.Status()
			wantDiag := DiagNone
			if c.local > Down && c.next == Down {
				wantDiag = DiagNeighborDown
			}
			if got.State != c.next || got.Diag != wantDiag || got.RemoteState != c.received || got.RemoteDiscr != farDiscr {
				t.Errorf("%v receives %v: %+v, want %v, %v", c.local, c.received, got, c.next, wantDiag)
			}
			// A change, and nothing else, is told at once. A neighbor not known before
			// is named at once too.
			if c.next != c.local || c.local == Down {
				if len(answers) != 1 || answers[0].State != c.next || answers[0].Diag != wantDiag || answers[0].YourDiscr != farDiscr {
					t.Errorf("%v receives %v: answers %+v", c.local, c.received, answers)
				}
			} else if len(answers) != 0 {
				t.Errorf("%v receives %v: answers %+v, want none", c.local, c.received, answers)
			}
			var want []State
			if c.next != c.local {
				want = []State{c.next}
			}
			if states := f.states(); !slices.Equal(states, want) {
				t.Errorf("%v receives %v: told of %v, want %v", c.local, c.received, states, want)
			}
		})
	}
}

func TestReceiveIgnores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{})
		defer f.s.Close()
		for i, c := range []struct {
			name string
			edit func(p *Packet)
			want error
		}{
			{"looped back", func(p *Packet) { p.MyDiscr = f.s.discr }, ErrLooped},
			{"another session's", func(p *Packet) { p.YourDiscr = f.s.discr + 1 }, ErrWrongSession},
			{"init without our discriminator", func(p *Packet) { p.State = Init }, ErrNoYourDiscr},
			{"up without our discriminator", func(p *Packet) { p.State = Up }, ErrNoYourDiscr},
			{"malformed", func(p *Packet) { p.Multiplier = 0 }, ErrMultiplier},
		} {
			p := f.says(Down)
			c.edit(&p)
			if err := f.s.Receive(p.Append(nil)); !errors.Is(err, c.want) {
				t.Errorf("%s: %v, want %v", c.name, err, c.want)
			}
			if got := f.s.Status(); got.Looped != 1 || got.RxErrors != uint64(i) || got.RxPackets != 0 || got.State != Down || !got.LastRx.IsZero() {
				t.Errorf("%s: %+v", c.name, got)
			}
		}
		if err := f.s.Receive(nil); !errors.Is(err, ErrShort) {
			t.Errorf("a broken frame: %v, want %v", err, ErrShort)
		}
	})
}

// A tunnel whose other end sends everything back must not come up, nor be busy.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s *Session
		made := make(chan struct{})
		s = New(Config{Send: func(b []byte) {
			<-made
			s.Receive(b)
		}})
		close(made)
		defer s.Close()
		time.Sleep(time.Minute)
		if got := s.Status(); got.State != Down || got.Looped != got.TxPackets || got.TxPackets > 80 || got.TxPackets < 60 {
			t.Errorf("after a minute: %+v", got)
		}
	})
}

func TestDiagnostics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{MinRx: 300 * time.Millisecond, MinTx: 300 * time.Millisecond})
		defer f.s.Close()
		f.up()
		got := f.s.Status()
		if got.DetectionTime != 900*time.Millisecond || got.MinRx != 300*time.Millisecond || got.MinTx != 300*time.Millisecond {
			t.Fatalf("up: %+v, want three times 300 ms", got)
		}
		f.take()
		time.Sleep(900*time.Millisecond - 1)
		synctest.Wait()
		if got := f.s.Status().State; got != Up {
			t.Fatalf("%v before the detection time is over", got)
		}
		f.take()
		time.Sleep(1)
		synctest.Wait()
		got = f.s.Status()
		if got.State != Down || got.Diag != DiagExpired || got.RemoteDiscr != 0 || got.Flaps != 1 || !got.Since.Equal(time.Now()) {
			t.Errorf("after the detection time: %+v", got)
		}
		if sent := f.take(); len(sent) != 1 || sent[0].State != Down || sent[0].Diag != DiagExpired || sent[0].YourDiscr != 0 ||
			sent[0].DesiredMinTx != time.Second {
			t.Errorf("sent %+v, want down and expired at once, to nobody known", sent)
		}
		// The reason stays when all is well again, as the RFC and OVS have it.
		f.up()
		if got := f.s.Status(); got.Diag != DiagExpired || got.Flaps != 1 {
			t.Errorf("up again: %+v", got)
		}
		if want, got := []State{Init, Up, Down, Init, Up}, f.states(); !slices.Equal(got, want) {
			t.Errorf("told of %v, want %v", got, want)
		}
	})
}

// Detection time = the other's multiplier x max(our required, its desired).
func TestDetectionTime(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		ours, theirs time.Duration
		multiplier   uint8
		want         time.Duration
	}{
		{300 * ms, 100 * ms, 3, 900 * ms},
		{100 * ms, 300 * ms, 3, 900 * ms},
		{300 * ms, 300 * ms, 1, 300 * ms},
		{10 * ms, 0, 2, 20 * ms},
		{0, 100 * ms, 3, 3 * time.Second},
		{300 * ms, 400 * ms, 255, 102 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFar(t, Config{MinRx: c.ours, Multiplier: 7}) // ours does not matter
			defer f.s.Close()
			f.up()
			p := f.says(Up)
			p.DesiredMinTx, p.Multiplier = c.theirs, c.multiplier
			f.hears(p)
			if got := f.s.Status().DetectionTime; got != c.want {
				t.Errorf("%+v: detection time %v", c, got)
			}
			time.Sleep(c.want - 1)
			synctest.Wait()
			if got := f.s.Status().State; got != Up {
				t.Errorf("%+v: %v too early", c, got)
			}
			time.Sleep(1)
			synctest.Wait()
			if got := f.s.Status().State; got != Down {
				t.Errorf("%+v: %v too late", c, got)
			}
		})
	}
}

// A restarted neighbor has another discriminator and is down: no timeout is needed.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{})
		defer f.s.Close()
		f.up()
		again := f.says(Down)
		again.MyDiscr = 0xbeef
		sent := f.hears(again)
		if got := f.s.Status(); got.State != Down || got.Diag != DiagNeighborDown || got.RemoteDiscr != 0xbeef {
			t.Errorf("after a restart: %+v", got)
		}
		if len(sent) != 1 || sent[0].State != Down || sent[0].YourDiscr != 0xbeef {
			t.Fatalf("answers %+v, want down to the new discriminator", sent)
		}
		again.State, again.YourDiscr = Init, f.s.discr
		if sent := f.hears(again); len(sent) != 1 || sent[0].State != Up {
			t.Errorf("answers %+v, want up", sent)
		}

		// And in Init, where the state does not change.
		f2 := newFar(t, Config{})
		defer f2.s.Close()
		f2.hears(f2.says(Down))
		again = f2.says(Down)
		again.MyDiscr = 0xbeef
		if sent := f2.hears(again); len(sent) != 1 || sent[0].State != Init || sent[0].YourDiscr != 0xbeef {
			t.Errorf("answers %+v, want init to the new discriminator", sent)
		}
	})
}

// A neighbor whose path is broken behind it (OVS's bfd:cpath_down) is up, and of no use.
func TestForwarding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{})
		defer f.s.Close()
		f.up()
		p := f.says(Up)
		for _, c := range []struct {
			diag Diag
			want bool
		}{
			{DiagConcatenated, false}, {DiagConcatenated, false}, {DiagExpired, true},
			{DiagPathDown, false}, {DiagNone, true}, {DiagReverseConcatenated, false}, {DiagNeighborDown, true},
		} {
			p.Diag = c.diag
			f.hears(p)
			if got := f.s.Status(); got.Forwarding() != c.want || got.State != Up {
				t.Errorf("neighbor says %v: %+v", c.diag, got)
			}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		var got []bool
		for _, n := range f.notes {
			got = append(got, n.Forwarding())
		}
		if want := []bool{false, true, false, true, false, true, false, true}; !slices.Equal(got, want) {
			t.Errorf("told of %v, want %v", got, want)
		}
	})
}

func TestDiscriminators(t *testing.T) {
	seen := map[uint32]bool{}
	for range 100_000 {
		d := newDiscriminator()
		if d == 0 || seen[d] {
			t.Fatalf("discriminator %#x is 0 or not new", d)
		}
		seen[d] = true
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(wire, uint8(0))
	f.Add(bytes.Repeat(wire, 3), uint8(1))
	f.Add(Packet{State: Up, Poll: true, Multiplier: 1, MyDiscr: 1}.Append(nil), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, known uint8) {
		if p, err := Parse(b); err == nil {
			if got := p.Append(nil); len(got) != PacketLen || !bytes.Equal(got[:3], b[:3]) || !bytes.Equal(got[4:], b[4:PacketLen]) {
				t.Fatalf("%x became %x", b, got)
			}
		}
		synctest.Test(t, func(t *testing.T) {
			far := newFar(t, Config{MinRx: 300 * time.Millisecond, MinTx: 300 * time.Millisecond})
			defer far.s.Close()
			// The bytes are a conversation, with our discriminator where its bit says so.
			for i := 0; len(b) > 0 && i < 64; i++ {
				p := bytes.Clone(b[:min(len(b), PacketLen)])
				b = b[len(p):]
				if known>>(i%8)&1 != 0 && len(p) == PacketLen {
					copy(p[offYourDiscr:], Packet{YourDiscr: far.s.discr}.Append(nil)[offYourDiscr:offMinTx])
				}
				before := far.s.Status()
				err := far.s.Receive(p)
				after := far.s.Status()
				if err != nil && (after.State != before.State || after.RxErrors+after.Looped == before.RxErrors+before.Looped) {
					t.Fatalf("%x: %v, %+v became %+v", p, err, before, after)
				}
				if err == nil && after.State != nextState(before.State, State(p[offFlags]>>stateShift)) {
					t.Fatalf("%x: %v became %v", p, before.State, after.State)
				}
				time.Sleep(time.Duration(i) * time.Millisecond)
			}
			for _, s := range far.take() {
				if s.Poll && s.Final {
					t.Fatal("sent Poll and Final in one packet")
				}
			}
		})
	})
}

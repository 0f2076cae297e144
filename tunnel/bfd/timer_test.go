package bfd

import (
	"testing"
	"testing/synctest"
	"time"
)

// gaps checks that the packets came between the two intervals after one another.
func gaps(t *testing.T, name string, all []sent, least, most time.Duration) {
	t.Helper()
	if len(all) < 10 {
		t.Errorf("%s: only %d packets", name, len(all))
	}
	shortest, longest := time.Duration(1<<62), time.Duration(0)
	for i := 1; i < len(all); i++ {
		gap := all[i].at.Sub(all[i-1].at)
		shortest, longest = min(shortest, gap), max(longest, gap)
	}
	if shortest < least || longest > most {
		t.Errorf("%s: packets came after %v to %v, want %v to %v", name, shortest, longest, least, most)
	}
	if spread := longest - shortest; spread < (most-least)/2 {
		t.Errorf("%s: packets came after %v to %v: no jitter", name, shortest, longest)
	}
}

func TestInterval(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name        string
		minTx, rx   time.Duration
		multiplier  uint8
		up          bool
		least, most time.Duration
	}{
		{"ours", 300 * ms, 100 * ms, 3, true, 225 * ms, 300 * ms},
		{"theirs", 300 * ms, 500 * ms, 3, true, 375 * ms, 500 * ms},
		{"default", 0, 0, 0, true, 75 * ms, 100 * ms},
		{"the least", 1, 1 * ms, 3, true, 7500 * time.Microsecond, 10 * ms},
		{"multiplier 1", 300 * ms, 100 * ms, 1, true, 225 * ms, 270 * ms},
		{"longer than slow", 2000 * ms, 100 * ms, 3, true, 1500 * ms, 2000 * ms},
		{"down", 300 * ms, 100 * ms, 3, false, 750 * ms, 1000 * ms},
		{"down, and longer than slow", 2000 * ms, 100 * ms, 3, false, 1500 * ms, 2000 * ms},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFar(t, Config{MinTx: c.minTx, Multiplier: c.multiplier})
			defer f.s.Close()
			if !c.up {
				time.Sleep(200 * time.Second)
				synctest.Wait()
				gaps(t, c.name, f.take(), c.least, c.most)
				return
			}
			f.up()
			p := f.says(Up)
			p.Final = true // ends the poll sequence that begins with Up
			p.RequiredMinRx = max(c.rx, ms)
			f.hears(p)
			p.Final = false
			gaps(t, c.name, f.lives(p, 100*time.Second), c.least, c.most)
		})
	}
}

// A neighbor that requires 0 wants no periodic packets (RFC 5880 section 6.8.7), but
// its polls are answered and changes are told. When it is gone it has no say any more.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{})
		defer f.s.Close()
		p := f.says(Down)
		p.RequiredMinRx = 0
		if got := f.hears(p); len(got) != 1 || got[0].State != Init {
			t.Errorf("answers %+v, want init", got)
		}
		if got := f.lives(p, time.Minute); len(got) != 0 {
			t.Errorf("%d packets, want silence", len(got))
		}
		if got := f.s.Status().MinTx; got != 0 {
			t.Errorf("interval %v, want 0", got)
		}
		p = f.says(Up)
		p.RequiredMinRx = 0
		if got := f.hears(p); len(got) != 1 || got[0].State != Up {
			t.Errorf("answers %+v, want up", got)
		}
		p.Poll = true
		if got := f.hears(p); len(got) != 1 || !got[0].Final || got[0].Poll {
			t.Errorf("answers a poll with %+v", got)
		}
		p.Poll, p.Final = false, true
		f.hears(p)
		p.Final = false
		f.hears(p)
		f.s.SetConfig(Config{MinRx: 2 * time.Second})
		synctest.Wait()
		if got := f.take(); len(got) != 1 || got[0].RequiredMinRx != 2*time.Second {
			t.Errorf("tells of its new interval by %+v", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		gaps(t, "after the neighbor is gone", f.take(), 750*time.Millisecond, time.Second)
	})
}

// A neighbor in demand mode is left alone while both are up, except to poll.
func TestDemand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{MinTx: 300 * time.Millisecond})
		defer f.s.Close()
		f.up()
		p := f.says(Up)
		p.Demand = true
		if got := f.lives(p, time.Second); len(got) < 3 || !got[0].Poll {
			t.Errorf("before Final %+v, want polls", got)
		}
		p.Final = true
		f.hears(p)
		p.Final = false
		if got := f.lives(p, time.Minute); len(got) != 0 {
			t.Errorf("%d packets in demand mode", len(got))
		}
		f.s.SetConfig(Config{MinTx: 200 * time.Millisecond})
		if got := f.lives(p, time.Second); len(got) < 3 || !got[len(got)-1].Poll {
			t.Errorf("%d packets when there is a change to tell", len(got))
		}
		p.Final = true
		f.hears(p)
		p.Final, p.Demand = false, false
		gaps(t, "after demand mode", f.lives(p, 10*time.Second), 150*time.Millisecond, 200*time.Millisecond)
		// It can still be missed: it sends, as we are not in demand mode.
		p.Demand = true
		f.hears(p)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if got := f.s.Status(); got.State != Down || got.Diag != DiagExpired {
			t.Errorf("silent neighbor in demand mode: %+v", got)
		}
	})
}

// RFC 5880 section 6.8.3.
func TestPollSequence(t *testing.T) {
	const ms = time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{MinRx: 300 * ms, MinTx: 300 * ms})
		defer f.s.Close()
		if first := f.take(); len(first) != 1 || first[0].Poll || first[0].DesiredMinTx != time.Second {
			t.Fatalf("first %+v", first)
		}
		f.hears(f.says(Down))
		got := f.hears(f.says(Up))
		if len(got) != 1 || !got[0].Poll || got[0].DesiredMinTx != 300*ms || got[0].State != Up {
			t.Fatalf("up: %+v, want a poll that tells 300 ms", got)
		}
		p := f.says(Up)
		for _, s := range f.lives(p, 2*time.Second) {
			if !s.Poll {
				t.Fatalf("stopped polling without Final: %+v", s)
			}
		}
		final, poll := p, p
		final.Final, poll.Poll = true, true

		// A poll of theirs is answered at once, without a poll of ours in it.
		if got := f.hears(poll); len(got) != 1 || !got[0].Final || got[0].Poll {
			t.Fatalf("answers a poll with %+v", got)
		}
		f.hears(final)
		for _, s := range f.lives(p, 2*time.Second) {
			if s.Poll || s.Final {
				t.Fatalf("polls or answers after the sequence: %+v", s)
			}
		}

		// A longer MinTx and a shorter MinRx are told, and used after Final only.
		f.s.SetConfig(Config{MinRx: 200 * ms, MinTx: 600 * ms})
		all := f.lives(p, 6*time.Second)
		gaps(t, "longer, not confirmed", all, 225*ms, 300*ms)
		for _, s := range all {
			if !s.Poll || s.DesiredMinTx != 600*ms || s.RequiredMinRx != 200*ms {
				t.Fatalf("tells %+v", s)
			}
		}
		if got := f.s.Status(); got.DetectionTime != 900*ms || got.MinTx != 300*ms {
			t.Errorf("not confirmed: %+v", got)
		}

		// A change within the sequence waits for its end, and for a packet that
		// cannot be part of it.
		f.s.SetConfig(Config{MinRx: 200 * ms, MinTx: 400 * ms})
		for _, s := range f.lives(p, 2*time.Second) {
			if s.DesiredMinTx != 600*ms {
				t.Fatalf("a second change in one sequence: %+v", s)
			}
		}
		f.hears(final)
		if got := f.s.Status(); got.DetectionTime != 600*ms || got.MinTx != 600*ms {
			t.Errorf("confirmed: %+v", got)
		}
		f.hears(final)
		if got := f.s.Status(); got.MinTx != 600*ms {
			t.Errorf("late copy of Final: %+v", got)
		}
		f.hears(p)
		if got := f.s.Status(); got.MinTx != 400*ms { // shorter: at once
			t.Errorf("next sequence: %+v", got)
		}
		for _, s := range f.lives(p, 2*time.Second) {
			if !s.Poll || s.DesiredMinTx != 400*ms {
				t.Fatalf("next sequence: %+v", s)
			}
		}
		f.hears(final)
		f.hears(p)

		// A shorter MinTx and a longer MinRx are used at once.
		f.s.SetConfig(Config{MinRx: 500 * ms, MinTx: 100 * ms, Multiplier: 5})
		if got := f.s.Status(); got.DetectionTime != 1500*ms || got.MinTx != 100*ms {
			t.Errorf("at once: %+v", got)
		}
		all = f.lives(p, 3*time.Second)
		gaps(t, "shorter", all, 75*ms, 100*ms)
		if all[0].Multiplier != 5 {
			t.Errorf("multiplier %d, want 5", all[0].Multiplier)
		}
	})
}

// A neighbor that lowers its required minimum does not wait for an old long interval.
func TestShorterAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{MinTx: 100 * time.Millisecond})
		defer f.s.Close()
		f.up()
		p := f.says(Up)
		p.RequiredMinRx, p.DesiredMinTx = time.Hour, time.Hour
		f.hears(p)
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := f.take(); len(got) != 0 {
			t.Fatalf("%d packets in a minute of an hour", len(got))
		}
		p.RequiredMinRx = time.Second
		if got := f.hears(p); len(got) != 1 {
			t.Errorf("sent %+v, want the one packet that is overdue", got)
		}
	})
}

// The other end cannot make the session answer more often than the limit.
func TestStorm(t *testing.T) {
	for _, c := range []struct {
		name string
		next func(f *far, i int) Packet
	}{
		{"states", func(f *far, i int) Packet { return f.says([]State{Down, Init, Down}[i%3]) }},
		{"polls", func(f *far, i int) Packet { p := f.says(Up); p.Poll = true; return p }},
		{"discriminators", func(f *far, i int) Packet { p := f.says(Down); p.MyDiscr += uint32(i); return p }},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFar(t, Config{})
			defer f.s.Close()
			f.up()
			f.take()
			const seconds = 10
			for i := range seconds * 10_000 {
				if err := f.s.Receive(c.next(f, i).Append(nil)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(100 * time.Microsecond)
			}
			synctest.Wait()
			// 10 at once, 10 a second, and the periodic ones: at most one in 75 ms.
			if got := len(f.take()); got > 10+seconds*(10+14) || got < seconds*5 {
				t.Errorf("%s: %d packets in %d s", c.name, got, seconds)
			}
		})
	}
}

// A timer that fires late tells of this process, not of the other end.
func TestLateTimer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{MinRx: 300 * time.Millisecond})
		defer f.s.Close()
		f.up()
		detect := func(silence, late time.Duration) State {
			f.s.mu.Lock()
			defer f.s.mu.Unlock()
			if silence != 0 {
				f.s.remote.heard = time.Now().Add(-silence)
			}
			f.s.detectLocked(time.Now(), late)
			return f.s.state
		}
		if got := detect(900*time.Millisecond, 100*time.Millisecond); got != Up {
			t.Fatalf("late timer: %v", got)
		}
		time.Sleep(299 * time.Millisecond)
		if got := detect(0, 0); got != Up {
			t.Fatalf("within the interval more: %v", got)
		}
		time.Sleep(time.Millisecond)
		if got := detect(0, time.Second); got != Down {
			t.Errorf("late a second time: %v", got)
		}
	})
}

func TestClamp(t *testing.T) {
	for _, c := range []struct{ in, want time.Duration }{
		{0, time.Minute}, {-1, minInterval}, {1, minInterval}, {minInterval, minInterval},
		{time.Second + 999, time.Second}, {2 * time.Hour, maxInterval},
	} {
		if got := clamp(c.in, time.Minute); got != c.want {
			t.Errorf("%v becomes %v, want %v", c.in, got, c.want)
		}
	}
}

// A packet about to be sent counts as the last one: a periodic one that became
// overdue by the same event does not go out beside it.
func TestNoDouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFar(t, Config{})
		defer f.s.Close()
		f.s.mu.Lock()
		defer f.s.mu.Unlock()
		f.s.due, f.s.interval = true, 0
		f.s.lastTx = time.Now().Add(-time.Hour)
		f.s.scheduleLocked()
		if f.s.interval != slowInterval || !f.s.nextTx.IsZero() {
			t.Errorf("next at %v, want none before the one that is due", f.s.nextTx)
		}
		f.s.due = false
		f.s.restLocked()
		if f.s.nextTx.IsZero() {
			t.Error("no periodic packet afterwards")
		}
	})
}

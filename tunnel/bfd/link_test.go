package bfd

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// link carries one end's packets to the other: late, and not always, or twice.
type link struct {
	delay time.Duration

	mu     sync.Mutex
	rng    *rand.Rand
	to     *Session
	cut    bool
	lossy  int     // at most so many in a row are lost
	lost   int     // in a row, until now
	double float64 // share that comes twice
}

func (l *link) send(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return
	}
	if l.lost < l.lossy && l.rng.IntN(4) != 0 {
		l.lost++
		return
	}
	l.lost = 0
	copies := 1
	if l.rng.Float64() < l.double {
		copies = 2
	}
	p := bytes.Clone(b)
	for range copies {
		time.AfterFunc(l.delay, func() {
			l.mu.Lock()
			to, cut := l.to, l.cut
			l.mu.Unlock()
			if to != nil && !cut {
				to.Receive(p)
			}
		})
	}
}

func (l *link) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// pair is two sessions and the links from each to the other.
type pair struct {
	t     *testing.T
	rng   *rand.Rand
	end   [2]*Session
	out   [2]*link
	delay time.Duration // of either direction

	mu    sync.Mutex
	notes [2][]Status
}

func newPair(t *testing.T, seed uint64, delay time.Duration) *pair {
	p := &pair{t: t, rng: rand.New(rand.NewPCG(seed, 0)), delay: delay}
	for i := range p.out {
		p.out[i] = &link{delay: delay, rng: rand.New(rand.NewPCG(seed, uint64(i)+1))}
	}
	return p
}

// start makes an end, with a config drawn by lot; an end that was there is
// forgotten, as when its process is killed.
func (p *pair) start(i int) {
	if old := p.end[i]; old != nil {
		old.mu.Lock()
		old.send = func([]byte) {} // dead
		old.mu.Unlock()
		old.Close()
	}
	c := p.config()
	c.Send = p.out[i].send
	c.Notify = func(s Status) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.notes[i] = append(p.notes[i], s)
	}
	p.end[i] = New(c)
	back := p.out[1-i]
	back.set(func() { back.to = p.end[i] })
}

func (p *pair) config() Config {
	pick := func() time.Duration { return time.Duration(50+p.rng.IntN(500)) * time.Millisecond }
	return Config{MinRx: pick(), MinTx: pick()}
}

func (p *pair) close() {
	p.end[0].Close()
	p.end[1].Close()
}

func (p *pair) status() (s [2]Status) {
	synctest.Wait()
	return [2]Status{p.end[0].Status(), p.end[1].Status()}
}

func (p *pair) bothUp(when string) {
	p.t.Helper()
	for i, s := range p.status() {
		if !s.Forwarding() {
			p.t.Fatalf("%s: end %d is %+v", when, i, s)
		}
	}
}

// last returns the last change that an end was told of.
func (p *pair) last(i int) Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.notes[i][len(p.notes[i])-1]
}

const seeds = 150

func each(t *testing.T, f func(t *testing.T, p *pair)) {
	for seed := range uint64(seeds) {
		rng := rand.New(rand.NewPCG(seed, 99))
		delay := time.Duration(rng.Int64N(int64(100 * time.Millisecond)))
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, seed, delay)
			f(t, p)
			p.close()
			if t.Failed() {
				t.Logf("seed %d, delay %v", seed, delay)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// Two ends are up within two round trips after the second one began, however long
// the first had been alone, and a killed end that returns is too.
func TestUpInTwoRoundTrips(t *testing.T) {
	each(t, func(t *testing.T, p *pair) {
		p.start(0)
		time.Sleep(time.Duration(p.rng.Int64N(int64(5 * time.Second))))
		p.start(1)
		time.Sleep(4 * p.delay)
		p.bothUp("first")
		for range 3 {
			time.Sleep(time.Duration(p.rng.Int64N(int64(5 * time.Second))))
			p.start(p.rng.IntN(2))
			time.Sleep(4 * p.delay)
			p.bothUp("after a restart")
		}
	})
}

// A cut is noticed by the end that hears nothing when its detection time is over,
// and by the other end when that one says so.
func TestCut(t *testing.T) {
	each(t, func(t *testing.T, p *pair) {
		p.start(0)
		p.start(1)
		time.Sleep(20 * time.Second)
		p.bothUp("before")
		deaf := p.rng.IntN(2)
		both := p.rng.IntN(2) == 0
		was := p.status()
		cut := time.Now()
		p.out[1-deaf].set(func() { p.out[1-deaf].cut = true })
		if both {
			p.out[deaf].set(func() { p.out[deaf].cut = true })
		}
		longest := max(was[0].DetectionTime, was[1].DetectionTime) + 2*p.delay
		time.Sleep(longest)
		now := p.status()
		if s := now[deaf]; s.State != Down || s.Diag != DiagExpired ||
			!s.Since.Equal(was[deaf].LastRx.Add(was[deaf].DetectionTime)) || s.Since.Before(cut) {
			t.Fatalf("deaf end at %v, cut at %v, last heard %v: %+v", s.Since, cut, was[deaf].LastRx, s)
		}
		other := p.last(1 - deaf)
		if both {
			if other.State != Down || other.Diag != DiagExpired || other.Since.After(cut.Add(longest)) {
				t.Fatalf("other end: %+v", other)
			}
		} else {
			p.mu.Lock()
			notes := p.notes[1-deaf]
			p.mu.Unlock()
			at := now[deaf].Since.Add(p.delay)
			down := notes[2] // Init and Up, or Up alone, came before
			if down.State != Down {
				down = notes[1]
			}
			if down.State != Down || down.Diag != DiagNeighborDown || !down.Since.Equal(at) {
				t.Fatalf("other end, want down at %v: %+v", at, notes)
			}
		}
		time.Sleep(time.Minute)
		for i := range p.out {
			p.out[i].set(func() { p.out[i].cut = false })
		}
		time.Sleep(time.Second + 4*p.delay)
		p.bothUp("mended")
		for i, s := range p.status() {
			if s.Flaps != 1 {
				t.Fatalf("end %d flapped %d times", i, s.Flaps)
			}
		}
	})
}

// What is lost or comes twice, below the multiplier, never takes a session down,
// nor does a change of its timers meanwhile.
func TestLoss(t *testing.T) {
	each(t, func(t *testing.T, p *pair) {
		p.start(0)
		p.start(1)
		time.Sleep(4 * p.delay)
		p.bothUp("first")
		for i := range p.out {
			p.out[i].set(func() { p.out[i].lossy, p.out[i].double = 2, 0.2 })
		}
		for range 10 {
			time.Sleep(time.Duration(p.rng.Int64N(int64(10 * time.Second))))
			p.end[p.rng.IntN(2)].SetConfig(p.config())
		}
		time.Sleep(time.Minute)
		for i, s := range p.status() {
			if s.Flaps != 0 || s.State != Up || s.Diag != DiagNone {
				t.Fatalf("end %d: %+v", i, s)
			}
			// All changes have come through in the end.
			s2, far := p.end[i], p.end[1-i]
			if s2.told != s2.want || s2.used != s2.want || s2.polling {
				t.Fatalf("end %d tells %v, uses %v, wants %v", i, s2.told, s2.used, s2.want)
			}
			if want := max(s2.want.tx, far.want.rx); s.MinTx != want || far.Status().MinRx != want {
				t.Fatalf("end %d sends every %v, the other expects %v, want %v", i, s.MinTx, far.Status().MinRx, want)
			}
		}
	})
}

// A link that loses every other packet from the start comes up all the same.
func TestUpDespiteLoss(t *testing.T) {
	each(t, func(t *testing.T, p *pair) {
		for i := range p.out {
			p.out[i].lossy, p.out[i].double = 2, 0.2
		}
		p.start(0)
		p.start(1)
		time.Sleep(30 * time.Second)
		p.bothUp("in half a minute")
	})
}

// An end that is closed is not waited for.
func TestOtherEndCloses(t *testing.T) {
	each(t, func(t *testing.T, p *pair) {
		p.start(0)
		p.start(1)
		time.Sleep(10 * time.Second)
		p.bothUp("before")
		p.end[0].Close()
		time.Sleep(p.delay)
		s := p.status()[1]
		if s.State != Down || s.Diag != DiagNeighborDown || s.RemoteState != AdminDown || s.RemoteDiag != DiagAdminDown {
			t.Fatalf("after the other end closed: %+v", s)
		}
	})
}

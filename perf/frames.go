package perf

import (
	"errors"
	"fmt"
	"time"

	"vswitch/internal/lab"
	"vswitch/perf/loadgen"
)

// pair is a sender at one container and a receiver at another, whose addresses the
// switch knows. Thread-safety: for one goroutine.
type pair struct {
	run   *Run
	out   *loadgen.Sender
	in    *loadgen.Receiver
	back  *loadgen.Sender // at the receiver's side, to be learned from
	flows int
}

// announceRate is at what rate addresses are announced, in frames a second, where
// not the rate but the result is wanted.
const announceRate = 200_000

// pair opens a sender and a receiver for so many flows.
func (r *Run) pair(flows int) (p *pair, err error) {
	from, to := r.ends()
	p = &pair{run: r, flows: flows}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.out, err = openSender(from.Namespace); err != nil {
		return nil, err
	}
	if p.back, err = openSender(to.Namespace); err != nil {
		return nil, err
	}
	err = to.Do(func() (err error) {
		p.in, err = loadgen.OpenReceiver("eth0", flows)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err = p.learn(); err != nil {
		return nil, err
	}
	return p, nil
}

func openSender(n *lab.Namespace) (s *loadgen.Sender, err error) {
	err = n.Do(func() error {
		s, err = loadgen.OpenSender("eth0")
		return err
	})
	return s, err
}

// learn makes the receiver's addresses known, twice: what a burst lost comes again.
// The sender's become known as it sends.
func (p *pair) learn() error {
	for range 2 {
		if _, err := p.back.Announce(p.run.Context, loadgen.DstMAC, p.flows, announceRate); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) close() {
	if p.out != nil {
		p.out.Close()
	}
	if p.back != nil {
		p.back.Close()
	}
	if p.in != nil {
		p.in.Close()
	}
}

// stream sends, and counts what arrives.
func (p *pair) stream(st loadgen.Stream) (loadgen.Sent, loadgen.Counts, error) {
	st.Flows = p.flows
	if err := p.in.Start(); err != nil {
		return loadgen.Sent{}, loadgen.Counts{}, err
	}
	var sent loadgen.Sent
	var counts loadgen.Counts
	err := p.run.metered(func() (err error) {
		sent, err = p.out.Send(p.run.Context, st)
		var stopErr error
		counts, stopErr = p.in.Stop(sent)
		return errors.Join(err, stopErr)
	})
	if err != nil {
		return sent, counts, err
	}
	if err := p.run.Context.Err(); err != nil {
		return sent, counts, err
	}
	if counts.Damaged > 0 {
		return sent, counts, fmt.Errorf("%d frames arrived damaged", counts.Damaged)
	}
	return sent, counts, nil
}

// delivered is how many frames the switch delivered, each once: what the receiver
// could not read in time was delivered, too.
func delivered(c loadgen.Counts) uint64 { return c.Distinct + c.Missing - c.Lost }

// deliveredRate is a rate in frames a second, from the first arrival to the last.
func deliveredRate(c loadgen.Counts) float64 {
	if c.Last <= c.First {
		return 0
	}
	return float64(delivered(c)) / time.Duration(c.Last-c.First).Seconds()
}

var frameMetrics = []Metric{
	{"rate", "delivered", "frames/s", More},
	{"offered", "offered", "frames/s", None},
	{"loss", "lost", "% of sent", None},
}

func frameSample(sent loadgen.Sent, c loadgen.Counts) Sample {
	return Sample{
		Values: map[string]float64{
			"rate":    deliveredRate(c),
			"offered": sent.PerSecond(),
			"loss":    100 * float64(c.Lost) / float64(max(sent.Frames, 1)),
		},
		Frames: delivered(c),
	}
}

// frames measures what is delivered of frames sent as fast as the sender can.
func frames(flows int, sizes ...int) func(*Run) (Sample, error) {
	return func(r *Run) (Sample, error) {
		p, err := r.pair(flows)
		if err != nil {
			return Sample{}, err
		}
		defer p.close()
		if flows > 1 {
			// Each flow twice, so that whatever a switch keeps of flows is there.
			if _, err := p.out.Send(r.Context, loadgen.Stream{Sizes: sizes, Flows: flows, Count: uint64(2 * flows), Rate: announceRate}); err != nil {
				return Sample{}, err
			}
		}
		sent, counts, err := p.stream(loadgen.Stream{Sizes: sizes, Duration: r.frameTime()})
		if err != nil {
			return Sample{}, err
		}
		if counts.Distinct == 0 {
			return Sample{}, errors.New("no frame arrived")
		}
		return frameSample(sent, counts), nil
	}
}

var losslessMetrics = []Metric{
	{"rate", "without loss", "frames/s", More},
}

// lossless searches the highest rate without loss.
func lossless(sizes ...int) func(*Run) (Sample, error) {
	return func(r *Run) (Sample, error) {
		p, err := r.pair(1)
		if err != nil {
			return Sample{}, err
		}
		defer p.close()
		rate, err := search(func(rate float64) (float64, bool, error) {
			sent, counts, err := p.stream(loadgen.Stream{Sizes: sizes, Rate: rate, Duration: time.Second})
			return sent.PerSecond(), counts.Lost == 0, err
		})
		if err != nil {
			return Sample{}, err
		}
		return Sample{Values: map[string]float64{"rate": rate}}, nil
	}
}

var steadyMetrics = []Metric{
	{"lost", "lost", "frames", None},
	{"reordered", "reordered", "frames", None},
	{"duplicated", "duplicated", "frames", None},
	{"sent", "sent", "frames", None},
	{"offered", "offered", "frames/s", None},
	{"p99", "one way p99", "µs", None},
}

// steadyFlows are many enough to be spread over whatever a switch spreads over.
const steadyFlows = 16

// steady sends for a minute at half the highest rate that the switch delivers.
func steady(r *Run) (Sample, error) {
	p, err := r.pair(steadyFlows)
	if err != nil {
		return Sample{}, err
	}
	defer p.close()
	size := []int{loadgen.MinLen}
	_, highest, err := p.stream(loadgen.Stream{Sizes: size, Duration: time.Second})
	if err != nil {
		return Sample{}, err
	}
	rate := deliveredRate(highest) / 2
	if rate < 1 {
		return Sample{}, errors.New("no frame arrived")
	}
	sent, counts, err := p.stream(loadgen.Stream{Sizes: size, Rate: rate, Duration: time.Minute})
	if err != nil {
		return Sample{}, err
	}
	return Sample{
		Values: map[string]float64{
			"lost": float64(counts.Lost), "reordered": float64(counts.Reordered), "duplicated": float64(counts.Duplicated + counts.Old),
			"sent": float64(sent.Frames), "offered": sent.PerSecond(), "p99": counts.Latency.Quantile(0.99).Seconds() * 1e6,
		},
		Frames: delivered(counts) + delivered(highest),
	}, nil
}

package perf

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vswitch/internal/lab"
	"vswitch/perf/loadgen"
)

// With many receiving ports the receiving interfaces count: a receiver each would
// take the machine from the switch. What they count is every frame that reached
// them; nobody else sends.

var fanOutMetrics = []Metric{
	{"rate", "delivered", "frames/s", More},
	{"offered", "offered", "frames/s", None},
}

// spread measures 64-byte frames from the first container to all others in turn, a
// flow each.
func spread(r *Run) (Sample, error) {
	others := r.Bed.Containers[1:]
	for range 2 {
		for i, c := range others {
			back, err := openSender(c.Namespace)
			if err != nil {
				return Sample{}, err
			}
			_, err = back.Announce(r.Context, func(int) loadgen.MAC { return loadgen.DstMAC(i) }, 1, 0)
			back.Close()
			if err != nil {
				return Sample{}, err
			}
		}
	}
	return fanOut(r, others, loadgen.Stream{Sizes: []int{loadgen.MinLen}, Flows: len(others)})
}

// flood measures 64-byte frames from the first container to an address that the
// switch does not know: each goes to all others.
func flood(r *Run) (Sample, error) {
	return fanOut(r, r.Bed.Containers[1:], loadgen.Stream{Sizes: []int{loadgen.MinLen}, Flows: 1, To: loadgen.Unknown})
}

// fanOut sends a stream as fast as it goes, and counts at the receiving interfaces.
func fanOut(r *Run, to []*lab.Container, st loadgen.Stream) (Sample, error) {
	out, err := openSender(r.Bed.Containers[0].Namespace)
	if err != nil {
		return Sample{}, err
	}
	defer out.Close()
	// Queues are full when counting begins and when it ends: what is in them counts
	// neither way.
	st.Duration = r.frameTime() / 4
	if _, err := out.Send(r.Context, st); err != nil {
		return Sample{}, err
	}
	before, err := received(to)
	if err != nil {
		return Sample{}, err
	}
	st.Duration = r.frameTime()
	var sent loadgen.Sent
	start := time.Now()
	err = r.metered(func() (err error) {
		sent, err = out.Send(r.Context, st)
		return err
	})
	took := time.Since(start)
	if err != nil {
		return Sample{}, err
	}
	after, err := received(to)
	if err != nil {
		return Sample{}, err
	}
	if after == before {
		return Sample{}, errors.New("no frame arrived")
	}
	return Sample{
		Values: map[string]float64{"rate": float64(after-before) / took.Seconds(), "offered": sent.PerSecond()},
		Frames: after - before,
	}, nil
}

// received returns how many frames have reached the containers so far.
func received(all []*lab.Container) (frames uint64, err error) {
	for _, c := range all {
		link, err := c.Link("eth0")
		if err != nil {
			return 0, fmt.Errorf("count frames of %s: %w", c.Name, err)
		}
		frames += link.Attrs().Statistics.RxPackets
	}
	return frames, nil
}

var addPortMetrics = []Metric{
	{"first", "to the first frame", "ms", Less},
	{"command", "the command itself", "ms", Less},
}

// addPort measures from the start of the command that adds a port to the first
// frame that came through it. A new container sends all the while.
func addPort(r *Run) (Sample, error) {
	late, err := r.Bed.Spare()
	if err != nil {
		return Sample{}, err
	}
	in, err := r.watch()
	if err != nil {
		return Sample{}, err
	}
	defer in.Close()
	out, err := openSender(late.Namespace)
	if err != nil {
		return Sample{}, err
	}
	defer out.Close()
	if err := in.Start(); err != nil {
		return Sample{}, err
	}
	ctx, stop := context.WithCancel(r.Context)
	defer stop()
	type ending struct {
		sent loadgen.Sent
		err  error
	}
	ended := make(chan ending, 1)
	go func() { // ended by stop
		sent, err := out.Send(ctx, loadgen.Stream{Sizes: []int{loadgen.MinLen}, Flows: 1, To: loadgen.Broadcast, Rate: 10_000, Duration: time.Minute})
		ended <- ending{sent, err}
	}()
	start := loadgen.Now()
	err = r.Bed.AddPort(late.Veth)
	took := loadgen.Now() - start
	if err == nil {
		err = lab.Wait(10*time.Second, func() error {
			if in.Arrived() == 0 && ctx.Err() == nil {
				return errors.New("no frame came through the new port")
			}
			return nil
		})
	}
	stop()
	sender := <-ended
	counts, stopErr := in.Stop(sender.sent)
	if err := errors.Join(err, sender.err, stopErr); err != nil {
		return Sample{}, err
	}
	return Sample{Values: map[string]float64{"first": milliseconds(counts.First - start), "command": milliseconds(took)}}, nil
}

// watch opens a receiver at the first container.
func (r *Run) watch() (in *loadgen.Receiver, err error) {
	err = r.Bed.Containers[0].Do(func() error {
		in, err = loadgen.OpenReceiver("eth0", 1)
		return err
	})
	return in, err
}

func milliseconds(ns int64) float64 { return float64(ns) / 1e6 }

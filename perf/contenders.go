package perf

import (
	"context"
	"errors"
	"fmt"
	"time"

	"vswitch/internal/lab"
	"vswitch/perf/loadgen"
	"vswitch/perf/subject"
)

// warmTime is how long frames go through a switch before anything is measured:
// the first ones meet cold caches and pages that were never touched.
const warmTime = 500 * time.Millisecond

// Contenders are the subjects, each to be stood up in a lab of its own.
func Contenders(all []subject.Subject) (some []Contender) {
	for _, s := range all {
		some = append(some, Contender{
			SubjectInfo: SubjectInfo{Name: s.Name, Title: s.Title, Notes: s.Notes},
			Version:     s.Version,
			Can:         s.Can,
			Up:          func(t subject.Topology) (*Stand, error) { return standUp(s, t) },
		})
	}
	return some
}

// standUp makes a lab and stands the subject up in it; nothing stays of either when
// it fails.
func standUp(s subject.Subject, t subject.Topology) (*Stand, error) {
	keeper := &lab.Standalone{}
	var bed *subject.Bed
	err := keeper.Try(func() (err error) {
		bed, err = s.Up(lab.New(keeper), t)
		return err
	})
	if err != nil {
		return nil, errors.Join(err, keeper.Close())
	}
	return &Stand{
		Bed:  bed,
		Try:  keeper.Try,
		Warm: func(ctx context.Context) error { return warm(ctx, bed) },
		CPU:  bed.CPU,
		Close: func() error {
			bed.Close()
			return keeper.Close()
		},
	}, nil
}

// warm sees that a frame comes through, and sends many.
func warm(ctx context.Context, bed *subject.Bed) error {
	r := &Run{Context: ctx, Bed: bed}
	from, to := r.ends()
	if err := lab.Ping(from, to); err != nil {
		return err
	}
	p, err := r.pair(1)
	if err != nil {
		return err
	}
	defer p.close()
	_, counts, err := p.stream(loadgen.Stream{Sizes: []int{size64}, Duration: warmTime})
	if err == nil && counts.Distinct == 0 {
		err = fmt.Errorf("%s answers ping, and no 64-byte frame arrived there", to.Name)
	}
	return err
}

// MachineCPU is the CPU time for which the machine was busy.
func MachineCPU() time.Duration {
	busy, _ := subject.MachineCPU()
	return busy
}

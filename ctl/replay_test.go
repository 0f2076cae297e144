package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"vswitch/capture"
	"vswitch/ctl/api"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

// paced is a capture of frames of so many bytes at so many milliseconds.
func paced(t testing.TB, frames ...[2]int) *bytes.Reader {
	t.Helper()
	var b bytes.Buffer
	w := capture.NewWriter(&b, capture.Options{})
	for _, f := range frames {
		p := capture.Packet{Time: time.UnixMilli(int64(1e12) + int64(f[0])), Interface: capture.Interface{Name: "eth0"}, Data: make([]byte, f[1])}
		if err := w.Write(&p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.NewReader(b.Bytes())
}

// injected notes what a replay injects, and when.
type injected struct {
	began time.Time
	calls []string // milliseconds: frames
	fail  error
}

func (n *injected) replay(speed float64) *replay {
	n.began = time.Now()
	return &replay{port: "p", speed: speed, mtu: 1500, refused: map[string]int{}, inject: func(f []vswitch.Injected) error {
		n.calls = append(n.calls, fmt.Sprintf("%d:%d", time.Since(n.began).Milliseconds(), len(f)))
		return n.fail
	}}
}

func TestReplayKeepsThePaceOfTheCapture(t *testing.T) {
	frames := [][2]int{{0, 60}, {0, 60}, {100, 60}, {50, 60}, {150, 60}, {150 + 2*3600e3, 60}}
	for _, tc := range []struct {
		speed float64
		want  []string
	}{
		// A time that goes back waits for nothing, and begins the clock anew; two hours
		// are cut to one.
		{1, []string{"0:2", "100:2", "200:1", "3600200:1"}},
		{10, []string{"0:2", "10:2", "20:1", "360020:1"}},
		{0.5, []string{"0:2", "200:2", "400:1", "3600400:1"}},
		{api.SpeedMax, []string{"0:6"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var n injected
			told := 0
			r, err := n.replay(tc.speed).run(t.Context(), paced(t, frames...), func(api.ReplayResult) { told++ })
			if err != nil || !slices.Equal(n.calls, tc.want) || r.Frames != 6 || r.Bytes != 360 {
				t.Errorf("speed %v: %v, %+v, %v, want %v", tc.speed, n.calls, r, err, tc.want)
			}
			if took := time.Since(n.began); told < int(took/time.Second)-1 {
				t.Errorf("speed %v: told %d times in %v", tc.speed, told, took)
			}
		})
	}
}

func TestReplayTellsWhatItRefused(t *testing.T) {
	var n injected
	r, err := n.replay(api.SpeedMax).run(t.Context(), paced(t, [2]int{0, 60}, [2]int{1, 13}, [2]int{2, 70000}, [2]int{3, 5}, [2]int{4, 64}), func(api.ReplayResult) {})
	want := "[{shorter than an Ethernet header (14 bytes) 2 2} {longer than a frame can be (65553 bytes) 1 3}]"
	if err != nil || r.Frames != 2 || r.Bytes != 124 || fmt.Sprint(r.Refused) != want {
		t.Errorf("%+v, %v", r, err)
	}
	for text, want := range map[string]string{"": "is empty", "no capture": "neither pcap nor pcapng"} {
		if _, err := n.replay(1).run(t.Context(), strings.NewReader(text), func(api.ReplayResult) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// A batch is what goes together, and bounded in frames and bytes.
func TestReplayGathers(t *testing.T) {
	var n injected
	var frames [][2]int
	for range 2*frame.MaxBatch + 1 {
		frames = append(frames, [2]int{0, 60})
	}
	if _, err := n.replay(api.SpeedMax).run(t.Context(), paced(t, frames...), func(api.ReplayResult) {}); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, c := range n.calls {
		var at, k int
		fmt.Sscanf(c, "%d:%d", &at, &k)
		if total += k; k > frame.MaxBatch {
			t.Errorf("%d frames at once", k)
		}
	}
	if total != len(frames) {
		t.Errorf("%d frames in all", total)
	}
}

// What came before a file that ends too soon, or a port that is gone, is counted.
func TestReplayThatEndsTooSoon(t *testing.T) {
	var n injected
	whole, _ := io.ReadAll(paced(t, [2]int{0, 60}, [2]int{0, 60}))
	r, err := n.replay(1).run(t.Context(), bytes.NewReader(whole[:len(whole)-9]), func(api.ReplayResult) {})
	if err == nil || !strings.Contains(err.Error(), "read packet 2: the capture file ends in the middle") || r.Frames != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	gone := errors.New("gone")
	n.fail = gone
	if r, err := n.replay(1).run(t.Context(), bytes.NewReader(whole), func(api.ReplayResult) {}); !errors.Is(err, gone) || r.Frames != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// The end of a context ends a pause of any length, and a client that sends nothing does
// not keep what it sent before waiting.
func TestReplayPausesAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n injected
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, err := n.replay(0.001).run(ctx, paced(t, [2]int{0, 60}, [2]int{3600e3, 60}), func(api.ReplayResult) {})
		if err == nil || time.Since(n.began) != time.Minute || r.Frames != 1 {
			t.Errorf("after %v: %+v, %v", time.Since(n.began), r, err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		var n injected
		whole, _ := io.ReadAll(paced(t, [2]int{0, 60}, [2]int{0, 60}, [2]int{0, 60}))
		out, in := io.Pipe()
		go func() { // ends with the test
			in.Write(whole[:len(whole)-2*92])
			time.Sleep(10 * time.Second)
			in.Write(whole[len(whole)-2*92:])
			in.Close()
		}()
		r, err := n.replay(1).run(t.Context(), out, func(api.ReplayResult) {})
		if err != nil || r.Frames != 3 || len(n.calls) < 2 || n.calls[0] != "0:1" {
			t.Errorf("%+v, %v, %v", r, err, n.calls)
		}
	})
}

func TestReplaysAreOneForEachPort(t *testing.T) {
	var r replays
	if !r.enter("a") || r.enter("a") || !r.enter("b") {
		t.Error("entered twice")
	}
	r.leave("a")
	if !r.enter("a") {
		t.Error("not left")
	}
}

// Any file, at any speed, ends: with a result or an error.
func FuzzReplay(f *testing.F) {
	b, _ := io.ReadAll(paced(f, [2]int{0, 60}, [2]int{1, 1514}))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var n injected
		r := n.replay(api.SpeedMax)
		r.read(t.Context(), bytes.NewReader(b)) // run would add a goroutine, and its chance
		if r.result.Frames > uint64(len(b)) {
			t.Fatalf("%+v of %d bytes", r.result, len(b))
		}
	})
}

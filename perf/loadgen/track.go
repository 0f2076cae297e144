package loadgen

// tracks are what has arrived of each flow: how many frames, the number after the
// highest, and a window of bits that says which of those before it have been seen.
//
//	           window bits             next
//	old │ 1 1 0 1 1 1 1 0 1 1 1 1 1 1 │ fresh, and those it leaps over missing
//	         late if 0, double if 1
//
// A frame is reordered when a later one of its flow arrived before it (RFC 4737
// section 3.3: its number is below the next expected). Windows together reach
// back half of windowFrames or more; behind, a frame that comes late
// cannot be told from one that comes twice, and is counted as old.
//
// Thread-safety: none.
type tracks struct {
	flows uint64
	words uint64   // of a window
	state []uint64 // for each flow one word, arrived<<32 | next, and its window
}

// windowFrames is how far back windows are to reach, in frames: a quarter of a
// second of the fastest stream, in 32 KiB, which a first-level cache holds.
const windowFrames = 1 << 18

func newTracks(flows int) *tracks {
	words := max(windowFrames/64/flows, 1)
	for words&(words-1) != 0 {
		words &= words - 1 // a power of two: positions are masked
	}
	return &tracks{flows: uint64(flows), words: uint64(words), state: make([]uint64, flows*(1+words))}
}

func (t *tracks) reset() { clear(t.state) }

// arrived returns how many different frames of a flow have come.
func (t *tracks) arrived(flow int) uint64 {
	return t.state[uint64(flow)*(1+t.words)] >> 32
}

// arrival is what a frame's number says about it.
type arrival uint8

const (
	fresh  arrival = iota // higher than all before
	late                  // lower than one before, and not seen yet
	double                // seen before
	old                   // behind the window: late or double
)

// add takes the arrival of frame seq, below 1<<32-1, of a flow.
func (t *tracks) add(flow, seq uint32) arrival {
	at := uint64(flow) * (1 + t.words)
	window := t.state[at+1 : at+1+t.words]
	mask := t.words*64 - 1
	state := t.state[at]
	next, number := state&0xffffffff, uint64(seq)

	if number < next {
		if next-number > mask+1 {
			return old
		}
		word, bit := &window[number&mask/64], uint64(1)<<(number%64)
		if *word&bit != 0 {
			return double
		}
		*word |= bit
		t.state[at] = state + 1<<32
		return late
	}
	if number-next > mask {
		clear(window)
	} else {
		for skipped := next; skipped < number; skipped++ {
			window[skipped&mask/64] &^= 1 << (skipped % 64)
		}
	}
	window[number&mask/64] |= 1 << (number % 64)
	t.state[at] = state&^0xffffffff + 1<<32 | (number + 1)
	return fresh
}

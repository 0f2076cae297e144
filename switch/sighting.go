package vswitch

import (
	"time"

	"vswitch/capture"
	"vswitch/frame"
)

// Sighting is what the switch saw of one frame at one port: that it came in and what
// became of it there, that it left, or that it was dropped on its way out. What
// watches, the flight recorder and traces tell of frames are sightings.
type Sighting struct {
	Time      time.Time
	Bridge    string
	Port      string
	Direction capture.Direction // Inbound: it came in by Port; Outbound: it left, or should have
	VLAN      uint16            // the VLAN it is in on the bridge; 0 without, or where it was not admitted
	Reason    Reason            // why it was dropped; DropNone: it was not
	// Of an inbound frame that was not dropped: how many copies of it were put out,
	// and the first port of those.
	Outputs int
	Output  string
	Own     bool // made by the switch itself, such as an ICMP answer

	// How many frames were passed over since the last one, because they came faster
	// than the recorder's rate, or than Sample says: this one stands for them, too.
	Skipped uint64

	Tag     frame.Tag     // with which it came, or left
	Offload frame.Offload // as it came; offsets are those without the tag
	WireLen int           // bytes of the whole frame, tag included
	// Data is the frame, without the tag that stands in Tag, cut to the snap length;
	// an unfinished checksum is unfinished here: see Finished. It is only valid
	// during the call it is handed to.
	Data []byte
}

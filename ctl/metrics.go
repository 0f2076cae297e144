package ctl

import (
	"fmt"
	"math"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metric is one row of the table of what is exported. docs/monitoring.md has the same
// table; a test compares them.
type metric struct {
	name, help string
	kind       prometheus.ValueType // 0: a histogram
	labels     []string
	desc       *prometheus.Desc
}

func (m *metric) kindName() string {
	switch m.kind {
	case prometheus.CounterValue:
		return "counter"
	case prometheus.GaugeValue:
		return "gauge"
	}
	return "histogram"
}

// metricTable is every metric of the switch itself, in the order of the page.
var metricTable []*metric

func newMetric(kind prometheus.ValueType, name, help string, labels ...string) *metric {
	m := &metric{name, help, kind, labels, prometheus.NewDesc(name, help, labels, nil)}
	metricTable = append(metricTable, m)
	return m
}

func counter(name, help string, labels ...string) *metric {
	return newMetric(prometheus.CounterValue, name, help, labels...)
}

func gauge(name, help string, labels ...string) *metric {
	return newMetric(prometheus.GaugeValue, name, help, labels...)
}

func histogram(name, help string, labels ...string) *metric {
	return newMetric(0, name, help, labels...)
}

// The metrics. A label's values are names of the desired document, reasons, kinds and
// numbers of workers: as many as there are of those, whatever the traffic. What has not
// happened is 0, with one exception: a port has series for the reasons it met only.
var (
	mBuildInfo     = gauge("vswitch_build_info", "1; the labels say what runs.", "version", "goversion", "kernel")
	mConfigVersion = gauge("vswitch_config_version", "Version of the desired document.")
	mConfigPending = gauge("vswitch_config_confirm_pending", "1 while a change waits for its confirmation.")
	mWarnings      = gauge("vswitch_warnings", "What vswitchctl show warns of, such as a store that cannot be written.")
	mResyncs       = counter("vswitch_interface_resyncs_total", "Times that the kernel's interface events were lost, and all was looked at anew.")

	mBridgeReceived = counter("vswitch_bridge_received_frames_total", "Frames that came to ports of the bridge, those that the kernel lost included.", "bridge")
	mBridgeCopies   = counter("vswitch_bridge_copies_total", "Frames made of others: flood and mirror copies, segments made in software (split).", "bridge", "kind")
	mBridgeAnswers  = counter("vswitch_bridge_answers_total", "Frames that the switch made itself, such as ICMP about a tunnel's MTU.", "bridge")
	mBridgeSent     = counter("vswitch_bridge_sent_frames_total", "Frames that left by ports of the bridge, or to capture files.", "bridge")
	mBridgeDropped  = counter("vswitch_bridge_dropped_frames_total", "Frames that were dropped: received + copies + answers = sent + dropped.", "bridge")

	mPorts     = gauge("vswitch_ports", "Ports of the bridge in a state: up, down, waiting, error.", "bridge", "state")
	mPortUp    = gauge("vswitch_port_up", "1 if the port forwards.", "bridge", "port", "type")
	mPortRx    = counter("vswitch_port_receive_frames_total", "Frames that came in by the port; a super-frame is one.", "bridge", "port")
	mPortRxB   = counter("vswitch_port_receive_bytes_total", "Bytes that came in by the port.", "bridge", "port")
	mPortTx    = counter("vswitch_port_transmit_frames_total", "Frames that left by the port; a super-frame is one.", "bridge", "port")
	mPortTxB   = counter("vswitch_port_transmit_bytes_total", "Bytes that left by the port.", "bridge", "port")
	mPortDrops = counter("vswitch_port_drops_total", "Frames dropped at the port, by reason; a reason that it never met has no series.", "bridge", "port", "reason")
	mEndDrops  = counter("vswitch_endpoint_drops_total", "Tunnel packets that belong to no port, by the endpoint they came to.", "endpoint", "reason")

	mFDBEntries  = gauge("vswitch_fdb_entries", "MAC addresses in the bridge's table.", "bridge")
	mFDBStatic   = gauge("vswitch_fdb_static_entries", "Those of them that are static.", "bridge")
	mFDBMax      = gauge("vswitch_fdb_max_entries", "MAC addresses that the table holds at most (mac-table-size).", "bridge")
	mFDBLearned  = counter("vswitch_fdb_learned_total", "MAC addresses that were learned.", "bridge")
	mFDBExpired  = counter("vswitch_fdb_expired_total", "MAC addresses that aged out.", "bridge")
	mFDBEvicted  = counter("vswitch_fdb_evicted_total", "MAC addresses that had to go from a full table.", "bridge")
	mFDBMoved    = counter("vswitch_fdb_moves_total", "Moves of MAC addresses from port to port.", "bridge")
	mFDBFlapping = gauge("vswitch_fdb_flapping_entries", "MAC addresses that move too fast, and are held.", "bridge")

	mTunnelUp    = gauge("vswitch_tunnel_up", "1 if the tunnel forwards.", "bridge", "port", "type", "remote")
	mTunnelMTU   = gauge("vswitch_tunnel_path_mtu_bytes", "Bytes of the largest packet that the way to the other end takes; missing while not known.", "bridge", "port")
	mTunnelBFD   = gauge("vswitch_tunnel_bfd_state", "State of the BFD session: 0 admin-down, 1 down, 2 init, 3 up.", "bridge", "port")
	mTunnelFlaps = counter("vswitch_tunnel_bfd_flaps_total", "Times that the BFD session went down.", "bridge", "port")

	mWorkerBusy     = counter("vswitch_worker_busy_seconds_total", "Seconds that the worker had frames to carry.", "worker")
	mWorkerSpinning = counter("vswitch_worker_spinning_seconds_total", "Seconds that it looked for work before it slept (--busy-poll).", "worker")
	mWorkerWakeups  = counter("vswitch_worker_wakeups_total", "Times that it was woken from sleep.", "worker")
	mWorkerBuffers  = gauge("vswitch_worker_buffers", "Frame buffers that the worker has.", "worker")
	mWorkerFree     = gauge("vswitch_worker_free_buffers", "Those of them that are free.", "worker")
	mBatch          = histogram("vswitch_batch_frames", "Frames of the batches that the worker read.", "worker")
	mResidence      = histogram("vswitch_residence_seconds", "Time of batches in the switch, from before they are read to after they are sent; one in 16 is measured.", "worker")

	mNATAddresses = gauge("vswitch_macnat_addresses", "IP addresses that the port's macnat knows of those behind it.", "bridge", "port")
	mNATMax       = gauge("vswitch_macnat_max_addresses", "IP addresses that it knows at most.", "bridge", "port")
	mNATEvicted   = counter("vswitch_macnat_evicted_total", "Addresses that had to go because it knew that many.", "bridge", "port")
	mNATMoved     = counter("vswitch_macnat_moves_total", "Times that another container claimed an address.", "bridge", "port")
	mNATRefused   = counter("vswitch_macnat_refused_frames_total", "Frames in which a container used an address of the host.", "bridge", "port")
	mNATUnknown   = counter("vswitch_macnat_unknown_frames_total", "Frames that came for an address that nobody behind the port has.", "bridge", "port")
	mNATOther     = counter("vswitch_macnat_other_frames_total", "Frames that came for the NIC's MAC address and are neither IP nor ARP.", "bridge", "port")
	mNATReflected = counter("vswitch_macnat_reflected_frames_total", "Frames that the LAN sent back, and that were dropped.", "bridge", "port")

	mMirrorUp     = gauge("vswitch_mirror_up", "1 if the mirror's output works.", "bridge", "mirror")
	mMirrorFrames = counter("vswitch_mirror_frames_total", "Frames that the mirror copied.", "bridge", "mirror")
	mMirrorLost   = counter("vswitch_mirror_lost_frames_total", "Copies that its file did not take.", "bridge", "mirror")
	mMirrorBytes  = counter("vswitch_mirror_written_bytes_total", "Bytes written to its files.", "bridge", "mirror")

	mRecFrames  = counter("vswitch_recorder_frames_total", "Frames that the flight recorder kept.")
	mRecDrops   = counter("vswitch_recorder_drops_total", "Drops that the flight recorder kept.")
	mRecSkipped = counter("vswitch_recorder_skipped_total", "Frames and drops that came faster than it records.")
	mRecOldest  = gauge("vswitch_recorder_oldest_frame_timestamp_seconds", "When the oldest frame that it holds was seen; missing while it holds none.")

	mSFlowUp        = gauge("vswitch_sflow_up", "1 if all collectors of the bridge's sFlow are reached, as far as can be known.", "bridge")
	mSFlowSamples   = counter("vswitch_sflow_samples_total", "Frames that were sampled for sFlow.", "bridge")
	mSFlowLost      = counter("vswitch_sflow_lost_samples_total", "Samples that were lost in the switch.", "bridge")
	mSFlowDatagrams = counter("vswitch_sflow_datagrams_total", "sFlow datagrams sent, over all collectors.", "bridge")
	mSFlowErrors    = counter("vswitch_sflow_errors_total", "sFlow datagrams that could not be sent, or that nobody took.", "bridge")
)

// emitter hands metrics to a scrape.
type emitter chan<- prometheus.Metric

func (e emitter) put(m *metric, v float64, labels ...string) {
	for i, l := range labels {
		labels[i] = labelText(l)
	}
	e <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

func (e emitter) count(m *metric, n uint64, labels ...string) { e.put(m, float64(n), labels...) }

func (e emitter) yes(m *metric, is bool, labels ...string) { e.put(m, float64(btoi(is)), labels...) }

// histogram puts counts of buckets, each of what its bound holds and those before do
// not; counts beyond bounds are of what no bound holds.
func (e emitter) histogram(m *metric, bounds []float64, counts []uint64, sum float64, labels ...string) {
	buckets := make(map[float64]uint64, len(bounds))
	var all uint64
	for i, n := range counts {
		all += n
		if i < len(bounds) {
			buckets[bounds[i]] = all
		}
	}
	e <- prometheus.MustNewConstHistogram(m.desc, all, sum, buckets, labels...)
}

// labelText is a label's value as Prometheus takes it: UTF-8. The document's names are
// that already.
func labelText(s string) string { return strings.ToValidUTF8(s, "?") }

// powers are n bounds that double: unit, 2 unit, 4 unit …
func powers(n int, unit float64) []float64 {
	bounds := make([]float64, n)
	for i := range bounds {
		bounds[i] = math.Ldexp(unit, i)
	}
	return bounds
}

// metricsPage is the table of metrics as Markdown, for docs/monitoring.md.
func metricsPage() string {
	var b strings.Builder
	b.WriteString("| metric | kind | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range metricTable {
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "` `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, m.kindName(), labels, m.help)
	}
	return b.String()
}

package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// basePort is the first port an iperf3 server of a namespace listens on.
const basePort = 5201

// Ping sends echo requests from one container to each address of another, of the
// families that both have, until each was answered; at most 3 seconds each.
func Ping(from, to *Container) error {
	return each(from, to, func(addr netip.Addr) error { return from.Ping(addr.String()) })
}

// NoPing is the opposite of Ping: an error when any address of to answers within
// a second.
func NoPing(from, to *Container) error {
	return each(from, to, func(addr netip.Addr) error {
		if _, err := from.Exec("ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", "1", addr.String()); err == nil {
			return fmt.Errorf("%s answers %s, and should not", addr, from.Name)
		}
		return nil
	})
}

// Ping sends echo requests to addr until one is answered, at most 3 seconds.
func (n *Namespace) Ping(addr string) error {
	// -c 1 ends with the first answer; -w 3 goes on asking until then.
	_, err := n.Exec("ping", "-n", "-q", "-c", "1", "-i", "0.2", "-w", "3", addr)
	return err
}

// each calls f for to's addresses of the families that from has too.
func each(from, to *Container, f func(netip.Addr) error) error {
	var four, six bool
	for _, ip := range from.IPs {
		four, six = four || ip.Is4(), six || ip.Is6()
	}
	asked := 0
	for _, ip := range to.IPs {
		if ip.Is4() && four || ip.Is6() && six {
			asked++
			if err := f(ip); err != nil {
				return err
			}
		}
	}
	if asked == 0 {
		return fmt.Errorf("%s and %s have no address family in common", from.Name, to.Name)
	}
	return nil
}

// Iperf3Result is what a run of iperf3 measured.
type Iperf3Result struct {
	BitsPerSecond float64 // that the receiver got
	Bytes         int64   // that the receiver got
	Retransmits   int     // TCP segments the sender sent again
	LostPackets   int     // UDP datagrams
	Packets       int     // UDP datagrams sent
	JSON          []byte  // all that the client said
}

// Iperf3 sends from one container to another's first address for some seconds.
// args are more options of the client, such as "-u", "-b", "1G"; "-R" turns the
// direction round. The server ends with the call.
func Iperf3(from, to *Container, seconds int, args ...string) (Iperf3Result, error) {
	return Iperf3To(from.Namespace, to.Namespace, to.IP(), seconds, args...)
}

// Iperf3To is Iperf3 between namespaces, to the address addr of to.
func Iperf3To(from, to *Namespace, addr string, seconds int, args ...string) (Iperf3Result, error) {
	to.mu.Lock()
	port := basePort + to.ports
	to.ports++
	to.mu.Unlock()

	server, err := to.start([]string{"iperf3", "-s", "-1", "-B", addr, "-p", strconv.Itoa(port)}, nil)
	if err != nil {
		return Iperf3Result{}, err
	}
	defer server.Kill()
	if err := to.waitListening(server, port); err != nil {
		return Iperf3Result{}, err
	}
	limit := time.Duration(seconds)*time.Second + 20*time.Second
	command := append([]string{"iperf3", "-c", addr, "-p", strconv.Itoa(port), "-t", strconv.Itoa(seconds),
		"--connect-timeout", "5000", "--json"}, args...)
	out, err := from.ExecTimeout(limit, command...)
	if err != nil {
		return Iperf3Result{}, err
	}
	return parseIperf3([]byte(out))
}

func parseIperf3(data []byte) (Iperf3Result, error) {
	type sum struct {
		BitsPerSecond float64 `json:"bits_per_second"`
		Bytes         int64   `json:"bytes"`
		Retransmits   int     `json:"retransmits"`
		Lost          int     `json:"lost_packets"`
		Packets       int     `json:"packets"`
	}
	var report struct {
		Error string `json:"error"`
		End   struct {
			Sent     sum  `json:"sum_sent"`
			Received *sum `json:"sum_received"`
			UDP      sum  `json:"sum"`
		} `json:"end"`
	}
	if err := json.Unmarshal(data, &report); err != nil {
		return Iperf3Result{}, fmt.Errorf("read iperf3's report: %w", err)
	}
	if report.Error != "" {
		return Iperf3Result{}, fmt.Errorf("iperf3: %s", report.Error)
	}
	if report.End.Received == nil {
		return Iperf3Result{}, errors.New("iperf3's report has no sum_received")
	}
	r := Iperf3Result{
		BitsPerSecond: report.End.Received.BitsPerSecond,
		Bytes:         report.End.Received.Bytes,
		Retransmits:   report.End.Sent.Retransmits,
		LostPackets:   report.End.UDP.Lost,
		Packets:       report.End.UDP.Packets,
		JSON:          data,
	}
	return r, nil
}

// waitListening waits until some socket of the namespace listens on a TCP port.
func (n *Namespace) waitListening(p *Proc, port int) error {
	want := fmt.Sprintf(":%04X", port)
	return Wait(10*time.Second, func() error {
		select {
		case <-p.Done():
			return fmt.Errorf("%s ended: %s", strings.Join(p.cmd.Args, " "), p.Out)
		default:
		}
		for _, file := range []string{"tcp", "tcp6"} {
			table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.PID(), file))
			for line := range strings.Lines(string(table)) {
				// sl local_address rem_address st; 0A is LISTEN
				f := strings.Fields(line)
				if len(f) > 3 && f[3] == "0A" && strings.HasSuffix(f[1], want) {
					return nil
				}
			}
		}
		return fmt.Errorf("nobody listens on port %d in %s", port, n.Name)
	})
}

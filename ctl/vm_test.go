package ctl_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// A virtual machine and a container on one bridge. The machine's network card is a TAP
// of the switch; QEMU attaches to it as root would, without a script.
//
//	c1 eth0 10.0.0.1 ── veth-c1 [host a: vswitchd, br0] vm1 (TAP) ── QEMU: eth0 10.0.0.9
//
// Both reach each other, by TCP with offloads, whoever opens the connection; a
// connection outlives the daemon, and the port outlives the machine.
func TestVirtualMachine(t *testing.T) {
	needQEMU(t)
	l := lab.New(t)
	files, err := buildGuest(l)
	if err != nil {
		t.Fatal(err)
	}
	h := l.Host("a")
	c1 := h.Container("c1", lab.Addr("10.0.0.1/24"))
	c1.Sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "20")
	d := h.Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", c1.Veth)
	d.Ctl("add-port", "br0", "vm1", "type=tap")

	g := files.boot(t, h, "vm1", "52:54:00:00:00:09")
	guestUp(g)
	waitPort(t, d, "vm1", api.PortUp)
	t.Log("the guest is up after ", strings.Fields(g.must("cat /proc/uptime"))[0], " seconds of its time")
	reach(t, g, c1)

	// What the guest's driver sends unsegmented stays whole on its way.
	before := mustPort(t, d, "vm1").Counters
	exchange(t, g, c1, true, nil)
	after := mustPort(t, d, "vm1").Counters
	if rx, most := after.RxFrames-before.RxFrames, uint64(exchanged/1448); rx >= most {
		t.Errorf("%d bytes left the guest in %d frames: its super-frames were cut", exchanged, rx)
	}
	if tx, most := after.TxFrames-before.TxFrames, uint64(exchanged/1448); tx >= most {
		t.Errorf("%d bytes reached the guest in %d frames: the container's super-frames were cut", exchanged, tx)
	}

	// The daemon dies and comes back in the middle of a connection.
	exchange(t, g, c1, false, func() {
		d.Kill()
		d.Start()
	})
	waitPort(t, d, "vm1", api.PortUp)
	reach(t, g, c1)

	// The machine loses its power, and gets it back.
	g.off()
	waitPort(t, d, "vm1", api.PortDown, "nobody has attached")
	g = files.boot(t, h, "vm1", "52:54:00:00:00:09")
	guestUp(g)
	waitPort(t, d, "vm1", api.PortUp)
	reach(t, g, c1)
}

func guestUp(g *guest) {
	g.t.Helper()
	g.must("ip addr add 10.0.0.9/24 dev eth0 && ip link set eth0 up")
	g.must("dd if=/dev/urandom of=/tmp/out bs=1M count=8 && test $(stat -c %s /tmp/out) = " + fmt.Sprint(exchanged))
}

func reach(t *testing.T, g *guest, c *lab.Container) {
	t.Helper()
	g.must("ping -c 1 -W 10 " + c.IP())
	if err := c.Ping("10.0.0.9"); err != nil {
		t.Error(err)
	}
}

const (
	exchanged = 8 << 20     // bytes that go each way in an exchange
	limit     = time.Minute // of an exchange, with the daemon's restart, on an emulated machine
)

// exchange sends bytes both ways at once by one TCP connection, which the guest opens or
// the container, and compares their checksums. In the middle of it halfway is called.
func exchange(t *testing.T, g *guest, c *lab.Container, guestOpens bool, halfway func()) {
	t.Helper()
	sent := hexSum(bytes.NewReader(random(exchanged)))
	wanted, _, _ := strings.Cut(g.must("sha256sum /tmp/out"), " ")

	conn, answer, err := connect(g, c, guestOpens)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(limit))

	reached, on := make(chan struct{}), make(chan struct{})
	wrote := make(chan error, 1)
	go func() { // ends with the bytes, or the deadline
		data := random(exchanged)
		_, err := conn.Write(data[:exchanged/2])
		close(reached)
		<-on
		if err == nil {
			_, err = conn.Write(data[exchanged/2:])
		}
		wrote <- errors.Join(err, conn.CloseWrite())
	}()
	got := make(chan string, 1)
	go func() { got <- hexSum(conn) }() // ends with the guest's last byte, or the deadline
	<-reached
	if halfway != nil {
		halfway()
	}
	close(on)
	if err := <-wrote; err != nil {
		t.Errorf("send to the guest: %v", err)
	}
	if sum := <-got; sum != wanted {
		t.Errorf("from the guest came %s, it sent %s", sum, wanted)
	}
	out, err := answer(limit)
	if err != nil {
		t.Fatal(err)
	}
	if sum, _, _ := strings.Cut(out, " "); sum != sent {
		t.Errorf("to the guest came %s, sent was %s", sum, sent)
	}
}

// connect opens a connection between the container and the guest's nc, whose answer is
// the checksum of what it received.
func connect(g *guest, c *lab.Container, guestOpens bool) (conn *net.TCPConn, answer func(time.Duration) (string, error), err error) {
	const rest = " </tmp/out >/tmp/in && sha256sum /tmp/in"
	if guestOpens {
		var ln *net.TCPListener
		err = c.Do(func() error {
			ln, err = net.ListenTCP("tcp", &net.TCPAddr{IP: net.ParseIP(c.IP())})
			return err
		})
		if err != nil {
			return nil, nil, err
		}
		defer ln.Close()
		answer = g.ask(fmt.Sprintf("nc %s %d"+rest, c.IP(), ln.Addr().(*net.TCPAddr).Port))
		ln.SetDeadline(time.Now().Add(limit))
		conn, err = ln.AcceptTCP()
		return conn, answer, err
	}
	answer = g.ask("nc -l -p 7000" + rest)
	err = lab.Wait(limit, func() error { // until it listens
		return c.Do(func() error {
			conn, err = net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.ParseIP("10.0.0.9"), Port: 7000})
			return err
		})
	})
	return conn, answer, err
}

// random is always the same bytes.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

// hexSum is the SHA-256 of what r yields, or why it ended before its end.
func hexSum(r io.Reader) string {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return fmt.Sprintf("(%d bytes, then %v)", n, err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

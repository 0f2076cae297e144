package filter

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"vswitch/frame"
)

// writePcap writes frames to a file. The seconds of a frame's time are its number.
func writePcap(t *testing.T, list []sample) string {
	var b bytes.Buffer
	le := binary.LittleEndian
	b.Write(le.AppendUint32(nil, 0xa1b2c3d4))
	b.Write([]byte{2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0})
	for i, s := range list {
		for _, v := range []int{i, 0, s.cut, len(s.wire)} {
			b.Write(le.AppendUint32(nil, uint32(v)))
		}
		b.Write(s.bytes())
	}
	path := filepath.Join(t.TempDir(), "frames.pcap")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// tcpdump returns which of n frames in a file its filter takes, or what it says.
func tcpdump(path, expr string, n int, options ...string) (takes []bool, refusal string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer f.Close()
	var out, complaint bytes.Buffer
	cmd := exec.Command("tcpdump", append(append([]string{"-n", "-r", "-", "-w", "-"}, options...), "--", expr)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = f, &out, &complaint
	if err := cmd.Run(); err != nil {
		for line := range strings.Lines(complaint.String()) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "reading from") {
				return nil, line, nil
			}
		}
		return nil, "", err
	}
	takes = make([]bool, n)
	b := out.Bytes()
	for at := 24; at+16 <= len(b); {
		i := binary.LittleEndian.Uint32(b[at:])
		takes[i] = true
		at += 16 + int(binary.LittleEndian.Uint32(b[at+8:]))
	}
	return takes, "", nil
}

func needTcpdump(t *testing.T) {
	if _, err := exec.LookPath("tcpdump"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("tcpdump is not installed")
		}
		t.Skip("tcpdump is not installed")
	}
}

// TestAgainstTcpdump compares verdicts with tcpdump's, over random frames and random
// expressions, with the outermost tag in the bytes and beside them.
func TestAgainstTcpdump(t *testing.T) {
	needTcpdump(t)
	r := rand.New(rand.NewPCG(5, 2))
	frames := samples(r, 600)
	path := writePcap(t, frames)
	exprs := grammar{r}.some(700)
	deadline := time.Now().Add(20 * time.Second)

	var wg sync.WaitGroup
	var mu sync.Mutex
	var compared, taken, never, quirks int
	queue := make(chan string)
	for range 2 {
		wg.Go(func() {
			for expr := range queue {
				got, want, answer := verdicts(t, path, expr, frames)
				mu.Lock()
				switch answer {
				case "":
					compared++
				case "never":
					never++
				}
				mu.Unlock()
				if got == nil {
					continue
				}
				for i := range frames {
					if want[i] {
						mu.Lock()
						taken++
						mu.Unlock()
					}
					if got[i] == want[i] {
						continue
					}
					plain, _, err := tcpdump(path, expr, len(frames), "-O")
					if err == nil && plain != nil && plain[i] == got[i] {
						// Its optimizer leaves loads out that change nothing but
						// whether the frame is long enough.
						mu.Lock()
						quirks++
						mu.Unlock()
						continue
					}
					t.Errorf("%q takes frame %d: %v, tcpdump says %v, its unoptimized program %v\n%x, cut at %d of %d", expr, i,
						got[i], want[i], plain != nil && plain[i], frames[i].bytes(), frames[i].cut, len(frames[i].wire))
					break
				}
			}
		})
	}
	for _, expr := range exprs {
		if time.Now().After(deadline) {
			t.Log("out of time")
			break
		}
		queue <- expr
	}
	close(queue)
	wg.Wait()
	t.Logf("%d expressions compared, %d that no frame can match, %d frames taken, %d verdicts that only tcpdump's optimizer has",
		compared, never, taken, quirks)
	if quirks*200 > compared*len(frames) {
		t.Errorf("%d verdicts differ from those of tcpdump's optimized programs: more than one in 200", quirks)
	}
	if compared < len(exprs)/2 && time.Now().Before(deadline) {
		t.Errorf("only %d of %d expressions were compared", compared, len(exprs))
	}
}

// TestSpoiledAgainstTcpdump spoils expressions by leaving words out, doubling them and
// putting others in, and compares what is still an expression, and what it takes.
func TestSpoiledAgainstTcpdump(t *testing.T) {
	needTcpdump(t)
	r := rand.New(rand.NewPCG(5, 3))
	g := grammar{r}
	frames := samples(r, 200)
	path := writePcap(t, frames)
	words := strings.Fields(`tcp ip ip6 arp ether host net port proto src dst or and not ( ) ! 80 443 10.0.0.1 10.0
		2001:db8::1 vlan 5 less 60 len > = + [ ] : 4 2 & | broadcast multicast mask 255.0.0.0 / 8 portrange 1-80
		02:00:00:00:00:01 domain http foo \tcp udp icmp6 stp`)
	apart := strings.NewReplacer("(", " ( ", ")", " ) ", "[", " [ ", "]", " ] ")
	spoil := func() string {
		var list []string
		for _, word := range strings.Fields(apart.Replace(g.expr(2))) {
			switch r.IntN(14) {
			case 0:
			case 1:
				list = append(list, word, word)
			case 2:
				list = append(list, pick(r, words))
			case 3:
				list = append(list, word, pick(r, words))
			default:
				list = append(list, word)
			}
		}
		return strings.Join(list, " ")
	}

	var wg sync.WaitGroup
	var mu sync.Mutex
	expressions := 0
	queue := make(chan string)
	for range 2 {
		wg.Go(func() {
			for expr := range queue {
				got, want, _ := verdicts(t, path, expr, frames)
				for i := range got {
					if got[i] == want[i] {
						continue
					}
					plain, _, err := tcpdump(path, expr, len(frames), "-O")
					if err != nil || plain == nil || plain[i] != got[i] {
						t.Errorf("%q takes frame %d: %v, tcpdump says %v\n%x", expr, i, got[i], want[i], frames[i].bytes())
					}
					break
				}
				if got != nil {
					mu.Lock()
					expressions++
					mu.Unlock()
				}
			}
		})
	}
	deadline := time.Now().Add(10 * time.Second)
	for i := 0; i < 1000 && time.Now().Before(deadline); i++ {
		queue <- spoil()
	}
	close(queue)
	wg.Wait()
	t.Logf("%d are still expressions", expressions)
}

// deliberate reports whether only one of the two refuses expr for a reason that
// docs/filters.md gives.
func deliberate(expr string, here error, there string) bool {
	if here == nil {
		return strings.Contains(there, "syntax error") && (strings.Contains(expr, "proto ") || strings.Contains(expr, "net ")) ||
			strings.Contains(there, "unknown port in range")
	}
	return strings.Contains(here.Error(), "a number, where") || strings.Contains(here.Error(), "is followed by a number up to")
}

// verdicts returns what we and what tcpdump say to each frame, or says that there is
// nothing to compare.
func verdicts(t *testing.T, path, expr string, frames []sample) (got, want []bool, answer string) {
	want, refusal, err := tcpdump(path, expr, len(frames))
	if err != nil {
		t.Errorf("tcpdump %q: %v", expr, err)
		return nil, nil, "error"
	}
	p, compileErr := Compile(expr)
	neverHere := compileErr != nil && strings.Contains(compileErr.Error(), "no frame can match")
	neverThere := strings.Contains(refusal, "expression rejects all packets")
	switch {
	case neverHere && neverThere:
		return nil, nil, "never"
	case neverThere && compileErr == nil:
		want = make([]bool, len(frames))
		answer = "never"
	case neverHere && refusal == "":
		return make([]bool, len(frames)), want, "never"
	case compileErr != nil || refusal != "":
		if (compileErr == nil) != (refusal == "") && !deliberate(expr, compileErr, refusal) {
			t.Errorf("%q: here %v, tcpdump says %q", expr, compileErr, refusal)
		}
		return nil, nil, "refused"
	}
	got = make([]bool, len(frames))
	for i, s := range frames {
		got[i] = p.Match(s.bytes(), frame.Tag{}, len(s.wire))
		if b, tag, ok := s.beside(); ok && p.Match(b, tag, len(s.wire)) != got[i] {
			t.Errorf("%q says %v to frame %d, and otherwise with its tag beside it\n%x", expr, got[i], i, s.bytes())
		}
	}
	return got, want, answer
}

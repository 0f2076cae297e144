package nat

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// xtables is one of the up to four filter tables that the iptables programs write: of IPv4
// or IPv6, in nftables or in the kernel's older tables. A packet passes those that are
// there, all of them; so it never matters which of them Docker uses, only in which it has its
// chain.
type xtables struct {
	v6, legacy bool
	path       string
	rules      []string // of the whole table, as -S prints them
	there      bool     // Docker's chain is
}

const (
	// xtablesLock is how long the programs wait for each other, in seconds.
	xtablesLock = "3"
	// xtablesTimeout ends one that does not end by itself.
	xtablesTimeout = 5 * time.Second
	// maxSaid is more than a table of 100,000 rules.
	maxSaid = 16 << 20
)

// program is the name that says which tables are meant.
func (x *xtables) program() string {
	name := "iptables"
	if x.v6 {
		name = "ip6tables"
	}
	if x.legacy {
		return name + "-legacy"
	}
	return name + "-nft"
}

// find looks for the program: where the name that says it is not installed, the plain
// one will do if its version says that it is the right one. Versions before 1.8 say nothing, and
// are legacy.
func (x *xtables) find() error {
	if x.path != "" {
		return nil
	}
	path, err := exec.LookPath(x.program())
	if err == nil {
		x.path = path
		return nil
	}
	plain, _, _ := strings.Cut(x.program(), "-")
	if path, err = exec.LookPath(plain); err != nil {
		return fmt.Errorf("chain %s is there, but no program to write it: %w", dockerChain, err)
	}
	version, err := runProgram(path, "--version")
	if err != nil {
		return err
	}
	if strings.Contains(version, "nf_tables") == x.legacy {
		return fmt.Errorf("chain %s is there, but no %s to write it (%s is %s)", dockerChain, x.program(), path, strings.TrimSpace(version))
	}
	x.path = path
	return nil
}

// said is what a program says, up to a bound.
type said struct{ text []byte }

func (s *said) Write(b []byte) (int, error) {
	if len(s.text)+len(b) > maxSaid {
		return 0, fmt.Errorf("it says more than %d bytes", maxSaid)
	}
	s.text = append(s.text, b...)
	return len(b), nil
}

func (s *said) String() string { return string(s.text) }

func runProgram(path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), xtablesTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	var stdout, stderr said
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		err = fmt.Errorf("no end after %v", xtablesTimeout)
	}
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, strings.Join(strings.Fields(stderr.String()), " "))
	}
	return stdout.String(), nil
}

func (x *xtables) run(args ...string) (string, error) {
	if err := x.find(); err != nil {
		return "", err
	}
	return runProgram(x.path, append([]string{"-w", xtablesLock}, args...)...)
}

// load reads the table.
func (x *xtables) load() error {
	out, err := x.run("-S")
	if err != nil {
		return err
	}
	x.read(out)
	return nil
}

// read takes in what -S prints.
func (x *xtables) read(out string) {
	x.rules = strings.Split(strings.TrimSpace(out), "\n")
	for i, r := range x.rules {
		x.rules[i] = strings.ReplaceAll(r, `"`, "") // versions differ in what they quote
	}
	x.there = slices.Contains(x.rules, "-N "+dockerChain)
}

// user is the rules of Docker's chain, in their order.
func (x *xtables) user() (rules []string) {
	for _, r := range x.rules {
		if strings.HasPrefix(r, "-A "+dockerChain+" ") {
			rules = append(rules, r)
		}
	}
	return rules
}

func comment(mark string) string { return " -m comment --comment " + mark + " " }

// marked is our rules among them, those of earlier lives too.
func (x *xtables) marked(mark string) (rules []string) {
	for _, r := range x.user() {
		if strings.Contains(r, comment(mark)) {
			rules = append(rules, r)
		}
	}
	return rules
}

// wanted is what our rules should be.
func (x *xtables) wanted(mark string, gateways []Gateway) (rules []string) {
	for _, g := range gateways {
		v4, v6 := families([]Gateway{g})
		if g.Internal || x.v6 && !v6 || !x.v6 && !v4 {
			continue
		}
		comes := ""
		if g.Masquerade && !g.Uplink {
			comes = " -m conntrack --ctstate RELATED,ESTABLISHED,DNAT"
		}
		rules = append(rules,
			"-A "+dockerChain+" -i "+g.Interface+comment(mark)+"-j ACCEPT",
			"-A "+dockerChain+" -o "+g.Interface+comes+comment(mark)+"-j ACCEPT")
	}
	return rules
}

// meaning is what a rule says, however a version of iptables spells it.
func meaning(rule string) string {
	w := strings.Fields(rule)
	words := ""
	for i := 0; i+1 < len(w); i++ {
		switch w[i] {
		case "-i", "-o", "-j":
			words += w[i] + w[i+1] + " "
		case "--ctstate":
			states := strings.Split(w[i+1], ",")
			slices.Sort(states)
			words += strings.Join(states, ",") + " "
		case "!":
			words += "! "
		}
	}
	return words
}

// same says whether rules mean the same, in any order.
func same(a, b []string) bool {
	var m, n []string
	for _, r := range a {
		m = append(m, meaning(r))
	}
	for _, r := range b {
		n = append(n, meaning(r))
	}
	slices.Sort(m)
	slices.Sort(n)
	return slices.Equal(m, n)
}

// put makes our rules in Docker's chain exactly those. What lacks comes before what is
// too much goes, so that nothing is shut out meanwhile.
func (x *xtables) put(mark string, want []string) error {
	surplus := x.marked(mark)
	for _, r := range want {
		if i := slices.IndexFunc(surplus, func(s string) bool { return meaning(s) == meaning(r) }); i >= 0 {
			surplus = slices.Delete(surplus, i, i+1)
			continue
		}
		if err := x.insert(r); err != nil {
			return err
		}
	}
	for _, r := range surplus {
		if _, err := x.run(append([]string{"-D"}, strings.Fields(r)[1:]...)...); err != nil {
			return err
		}
	}
	return nil
}

// insert puts a rule behind the users' own, but before the RETURN that Docker ends its
// chain with.
func (x *xtables) insert(r string) error {
	out, err := x.run("-S", dockerChain)
	if err != nil {
		return err
	}
	args := strings.Fields(r)[2:]
	lines := strings.Split(strings.TrimSpace(out), "\n")
	lines = slices.DeleteFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "-A ") })
	at := slices.Index(lines, "-A "+dockerChain+" -j RETURN")
	if at < 0 {
		at = len(lines)
	}
	_, err = x.run(append([]string{"-I", dockerChain, fmt.Sprint(at + 1)}, args...)...)
	return err
}

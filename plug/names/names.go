// Package names is a DNS server for the containers of a bridge: it answers their names at the
// gateway's address, and asks the host's resolvers for all else. It knows no bridge and no
// container: a View is all it is told.
package names

import (
	"log/slog"
	"net/netip"

	_ "github.com/miekg/dns" // the room's tool
)

// View is one network's names.
type View struct {
	Bridge  string
	Listen  []netip.Addr   // UDP and TCP port 53 of each
	Clients []netip.Prefix // who is answered, beside the host itself
	Records []Record
}

// Record is a container: one or more names, one or more addresses. Several containers may have
// one name, which then has the addresses of all, in turn.
type Record struct {
	Names []string // lower case labels; the first is what PTR answers
	Addrs []netip.Addr
}

// Status is what became of a View.
type Status struct {
	Bridge string
	Listen []netip.AddrPort // where it is answered
	Err    string           // why not at all of them; "" it is
}

// Server answers for all views.
//
// Thread-safety: safe for concurrent use.
type Server struct{}

// New opens nothing yet. resolvConf is the file that names the host's resolvers; it is read
// again when it changes.
func New(resolvConf string, log *slog.Logger) *Server { return &Server{} }

// Set makes these the views, at once: a name that is in none is not answered any more. An
// address that cannot be listened at yet is tried again by the next Set and once a second.
func (s *Server) Set(views []View) {}

// Status says what became of the views.
func (s *Server) Status() []Status { return nil }

// Close ends all.
func (s *Server) Close() error { return nil }

package nat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// page is all that the table says.
type page struct {
	table  string
	sets   []set
	chains []chain
	docker []string // Docker's bridges, as they were seen
}

type set struct {
	name     string
	comment  string
	key      nftables.SetDatatype
	data     *nftables.SetDatatype // of a map
	elements []nftables.SetElement
}

type chain struct {
	name     string
	kind     nftables.ChainType // "" is a chain that others jump to
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
	rules    []rule
}

type rule struct {
	comment string // at most 127 bytes; nft(8) shows it
	exprs   []expr.Any
}

const (
	// elementsPerMessage keeps a message's list of elements below the 64 KiB that the
	// length of a netlink attribute can say.
	elementsPerMessage = 256
	// socketBuffer takes a transaction with maxForwards elements as one datagram.
	socketBuffer = 8 << 20
)

// largeBuffers makes room for a transaction, and for its answers.
func largeBuffers(c *netlink.Conn) error {
	return errors.Join(c.SetWriteBuffer(socketBuffer), c.SetReadBuffer(socketBuffer))
}

func (p *page) tableRef() *nftables.Table {
	return &nftables.Table{Name: p.table, Family: nftables.TableFamilyINet}
}

// write replaces the table, whatever is there, by the page, in one transaction.
func (p *page) write() error {
	c, err := open()
	if err != nil {
		return err
	}
	defer c.CloseLasting()
	t := p.tableRef()
	c.AddTable(t) // so that there is one to delete
	c.DelTable(t)
	c.AddTable(t)
	for _, s := range p.sets {
		ns := &nftables.Set{Table: t, Name: s.name, Comment: s.comment, KeyType: s.key, KeyByteOrder: binaryutil.BigEndian}
		if s.key.Name == nftables.TypeIFName.Name {
			ns.KeyByteOrder = binaryutil.NativeEndian
		}
		if s.data != nil {
			ns.IsMap, ns.DataType = true, *s.data
		}
		if err := c.AddSet(ns, nil); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
		for some := range slices.Chunk(s.elements, elementsPerMessage) {
			if err := c.SetAddElements(ns, some); err != nil {
				return fmt.Errorf("set %s: %w", s.name, err)
			}
		}
	}
	accept := nftables.ChainPolicyAccept
	chains := make([]*nftables.Chain, len(p.chains))
	for i, ch := range p.chains { // all before any rule: rules jump
		nc := &nftables.Chain{Table: t, Name: ch.name}
		if ch.kind != "" {
			nc.Type, nc.Hooknum, nc.Priority, nc.Policy = ch.kind, ch.hook, ch.priority, &accept
		}
		chains[i] = c.AddChain(nc)
	}
	for i, ch := range p.chains {
		for _, r := range ch.rules {
			c.AddRule(&nftables.Rule{Table: t, Chain: chains[i], Exprs: r.exprs,
				UserData: userdata.AppendString(nil, userdata.TypeComment, r.comment)})
		}
	}
	return c.Flush()
}

// isThere says whether the table has the page's chains, rules (known by their comments)
// and elements.
func (p *page) isThere() (bool, error) {
	c, err := open()
	if err != nil {
		return false, err
	}
	defer c.CloseLasting()
	if there, err := hasTable(c, p.table); !there || err != nil {
		return false, err
	}
	t := p.tableRef()
	all, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, err
	}
	for _, ch := range p.chains {
		i := slices.IndexFunc(all, func(a *nftables.Chain) bool { return a.Table.Name == p.table && a.Name == ch.name })
		if i < 0 {
			return false, nil
		}
		rules, err := c.GetRules(t, all[i])
		if err != nil {
			return false, err
		}
		if !slices.EqualFunc(rules, ch.rules, func(a *nftables.Rule, b rule) bool {
			comment, _ := userdata.GetString(a.UserData, userdata.TypeComment)
			return comment == b.comment
		}) {
			return false, nil
		}
	}
	for _, s := range p.sets {
		ns := &nftables.Set{Table: t, Name: s.name}
		found, err := c.GetSetElements(ns)
		if errors.Is(err, os.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if !sameElements(found, s.elements) {
			return false, nil
		}
	}
	return true, nil
}

func sameElements(a, b []nftables.SetElement) bool {
	if len(a) != len(b) {
		return false
	}
	is := make(map[string][]byte, len(a))
	for _, e := range a {
		is[string(e.Key)] = e.Val
	}
	for _, e := range b {
		v, ok := is[string(e.Key)]
		if !ok || !bytes.Equal(v, e.Val) {
			return false
		}
	}
	return true
}

// noNFTables says that an error means a kernel without nftables, in which there is nothing
// of anybody's.
func noNFTables(err error) bool {
	return errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

func hasTable(c *nftables.Conn, name string) (bool, error) {
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyINet)
	if noNFTables(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == name }), nil
}

// removeTable removes the table, if it is there.
func removeTable(name string) error {
	c, err := open()
	if err != nil {
		if noNFTables(err) {
			return nil
		}
		return err
	}
	defer c.CloseLasting()
	if there, err := hasTable(c, name); !there || err != nil {
		return err
	}
	c.DelTable(&nftables.Table{Name: name, Family: nftables.TableFamilyINet})
	return c.Flush()
}

// elements lists those of a set of a table; there may be no such table or set.
func elements(table, name string) ([]nftables.SetElement, error) {
	c, err := open()
	if err != nil {
		if noNFTables(err) {
			return nil, nil
		}
		return nil, err
	}
	defer c.CloseLasting()
	if there, err := hasTable(c, table); !there || err != nil {
		return nil, err
	}
	t := &nftables.Table{Name: table, Family: nftables.TableFamilyINet}
	sets, err := c.GetSets(t)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		if s.Name != name {
			continue
		}
		return c.GetSetElements(s)
	}
	return nil, nil
}

// generation counts the transactions of nftables in this namespace, anybody's
// (NFT_MSG_GETGEN, linux/netfilter/nf_tables.h).
func generation() (uint32, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	answers, err := c.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN), Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0}, // struct nfgenmsg
	})
	if err != nil {
		return 0, err
	}
	for _, m := range answers {
		if len(m.Data) < 4 {
			continue
		}
		d, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return 0, err
		}
		d.ByteOrder = binary.BigEndian
		for d.Next() {
			if d.Type() == unix.NFTA_GEN_ID {
				return d.Uint32(), nil
			}
		}
		if err := d.Err(); err != nil {
			return 0, err
		}
	}
	return 0, errors.New("the answer has no generation")
}

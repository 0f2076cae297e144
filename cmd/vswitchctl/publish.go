package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) publish() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "publish BR [HOST:]PORT:CONTAINER:PORT[/udp]",
		Short: "Let a port of the host lead to a port of a container",
		Long: `Let a port of the host lead to a port of a container that is plugged into BR: from the host's addresses
and from localhost. The bridge needs an address (set-br BR ip=…), and the container one on it.`,
		Example: "  vswitchctl publish br0 8080:web:80\n  vswitchctl publish br0 127.0.0.1:5353:dns:53/udp",
		Args:    between(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.publishing(cmd, args, "publish+")
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
	return cmd
}

func (a *app) unpublish() *cobra.Command {
	return &cobra.Command{
		Use:     "unpublish BR [HOST:]PORT:CONTAINER:PORT[/udp]",
		Short:   "Take a published port back",
		Example: "  vswitchctl unpublish br0 8080:web:80",
		Args:    between(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.publishing(cmd, args, "publish-")
		},
		ValidArgsFunction: a.complete(a.bridges, a.publishedWords),
	}
}

// publishing changes what the plug of a container publishes.
func (a *app) publishing(cmd *cobra.Command, args []string, option string) error {
	container, pub, err := splitPublish(args[1])
	if err != nil {
		return err
	}
	c := a.client()
	defer c.Close()
	list, err := c.Plugged(cmd.Context(), args[0])
	if err != nil {
		return err
	}
	p, err := publisher(list, container, args[0])
	if err != nil {
		return err
	}
	if option == "publish-" {
		if has := publishedBy(p); !slices.Contains(has, pub.String()) {
			what := "nothing is"
			if len(has) > 0 {
				what = "what is: " + strings.Join(has, ", ")
			}
			return fmt.Errorf("%s of %s is not published; %s", pub, p.Port, what)
		}
	}
	if err := a.edit(cmd, config.Op{Op: "set-port", Port: p.Port, Options: config.Options{option: pub.String()}}); err != nil || option == "publish-" {
		return err
	}
	all, err := c.Published(cmd.Context(), args[0])
	if err != nil {
		return nil // it was asked for, and is in the document
	}
	for _, row := range all {
		// A plug that is not there was told of already.
		if row.Port == p.Port && row.Host == hostOf(pub) && row.State != "up" && row.Reason != p.Reason {
			fmt.Fprintln(a.err, clean(row.Host+": "+row.State+": "+row.Reason))
		}
	}
	return nil
}

// publisher finds the plug of a container, which may be named by its port, too.
func publisher(list []api.PlugStatus, container, bridge string) (api.PlugStatus, error) {
	var found []api.PlugStatus
	var ports []string
	owner := ""
	for _, p := range list {
		ref, err := config.ParseContainer(p.Container)
		is := p.Port == container || p.Container == container || err == nil && ref.Short() == container
		switch {
		case p.Owner != "":
			if is || slices.Contains(p.Names, container) { // a namespace's file does not say whose it is
				owner = p.Owner
			}
		case !is:
		default:
			found, ports = append(found, p), append(ports, p.Port)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return api.PlugStatus{}, fmt.Errorf("%s has %d plugs in %s: name the port instead: %s", container, len(found), bridge, strings.Join(ports, ", "))
	case owner == "docker":
		return api.PlugStatus{}, fmt.Errorf("%s is plugged into %s by Docker, which publishes its ports, too: docker run -p", container, bridge)
	case owner != "":
		return api.PlugStatus{}, fmt.Errorf("%s is plugged into %s by %s, which publishes its ports, too (capability portMappings)", container, bridge, owner)
	}
	return api.PlugStatus{}, fmt.Errorf("%s is not plugged into %s; plugged lists what is", container, bridge)
}

// publishedBy lists what a plug publishes, as its option says it.
func publishedBy(p api.PlugStatus) []string {
	text, _ := p.Options["publish"].(string)
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' })
}

// hostOf is the side of the host of what is published, as the daemon lists it.
func hostOf(p config.Publish) string {
	host := "*"
	if p.Host.IsValid() {
		host = p.Host.String()
	}
	if p.Host.Is6() {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d/%s", host, p.Port, p.Proto)
}

// publishedWords completes what is published on the bridge that was typed first.
func (a *app) publishedWords(before []string) (words []string) {
	c := api.NewClient(a.socket, completionTimeout)
	defer c.Close()
	list, _ := c.Plugged(context.Background(), arg(before, 0))
	for _, p := range list {
		if p.Owner != "" {
			continue
		}
		for _, text := range publishedBy(p) {
			if from, to, ok := cutLast(text, ":"); ok {
				words = append(words, from+":"+p.Port+":"+to)
			}
		}
	}
	return words
}

// splitPublish reads [HOST:]PORT:CONTAINER:PORT[/udp]. CONTAINER may hold a colon itself
// (docker:web): what stands before it is digits, or an address and digits.
func splitPublish(s string) (container string, p config.Publish, err error) {
	bad := &usageError{message: fmt.Sprintf("%q: want [HOST:]PORT:CONTAINER:PORT[/udp], such as 8080:web:80", s)}
	rest, to, ok := cutLast(s, ":")
	if !ok {
		return "", p, bad
	}
	host := ""
	if strings.HasPrefix(rest, "[") {
		in, after, ok := strings.Cut(rest, "]:")
		if !ok {
			return "", p, bad
		}
		host, rest = in+"]:", after
	} else if word, after, ok := strings.Cut(rest, ":"); ok && strings.Contains(word, ".") {
		host, rest = word+":", after
	}
	port, container, ok := strings.Cut(rest, ":")
	if !ok || container == "" || strings.Trim(port, "0123456789") != "" {
		return "", p, bad
	}
	p, err = config.ParsePublish(host + port + ":" + to)
	if err != nil {
		return "", p, &usageError{message: err.Error()}
	}
	return container, p, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (a *app) published() *cobra.Command {
	return &cobra.Command{
		Use:     "published [BR]",
		Short:   "List the ports of the host that lead to containers",
		Example: "  vswitchctl published",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			list, err := c.Published(cmd.Context(), arg(args, 0))
			if err != nil {
				return err
			}
			return a.print(list, func() string {
				if len(list) == 0 {
					return "nothing is published; vswitchctl publish BR 8080:CONTAINER:80 does it\n"
				}
				t := newTable("", "BRIDGE", "HOST", "CONTAINER", "TO", "STATE")
				for _, p := range list {
					container, whole := tail(p.Container, nameWidth)
					to := p.To
					if to == "" {
						to = "-"
					}
					r := t.add(p.Bridge, p.Host, container, to, stateText(p.State))
					for _, text := range []string{p.Reason, whole} {
						if text != "" {
							r.under = append(r.under, text)
						}
					}
				}
				return t.String()
			})
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
}

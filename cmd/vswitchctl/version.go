package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

// bothVersions is what `version -o json` prints.
type bothVersions struct {
	Client string       `json:"client"`
	Daemon *api.Version `json:"daemon,omitempty"` // absent: not reachable
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this command and of the daemon",
		Example: "  vswitchctl version",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			v := bothVersions{Client: version}
			d, err := c.Version(cmd.Context())
			if err == nil {
				v.Daemon = &d
			}
			if perr := a.print(v, func() string {
				s := "vswitchctl " + version + "\n"
				if err == nil {
					s += clean(fmt.Sprintf("vswitchd   %s (API %d, %s, Linux %s), pid %d, since %s",
						d.Version, d.API, d.Go, d.Kernel, d.PID, a.clock(d.Started))) + "\n"
				}
				return s
			}); perr != nil {
				return perr
			}
			return err // its own version is told first, also when nobody answers
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

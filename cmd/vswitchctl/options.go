package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/config"
)

// keyValues reads k=v arguments as they are; the daemon judges names and values.
func keyValues(cmd *cobra.Command, args []string) (config.Options, error) {
	o := config.Options{}
	for _, kv := range args {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, &usageError{fmt.Sprintf("%q is not of the form option=value", kv), cmd}
		}
		if _, twice := o[name]; twice {
			return nil, &usageError{fmt.Sprintf("option %s is given twice", name), cmd}
		}
		o[name] = value
	}
	return o, nil
}

// optionsHelp is the list of options that a verb's --help prints: see helpTemplate.
func optionsHelp(of string, objects ...config.Object) map[string]string {
	var b strings.Builder
	fmt.Fprintf(&b, "Options of %s:\n", of)
	var seen []string
	for _, object := range objects {
		for _, o := range config.OptionsFor(object) {
			if slices.Contains(seen, o.Name) {
				continue
			}
			seen = append(seen, o.Name)
			fmt.Fprintf(&b, "  %s=%s", o.Name, strings.ToUpper(strings.ReplaceAll(o.Kind.String(), " ", "-")))
			var of []string
			for _, other := range objects {
				if o.Applies(other) {
					of = append(of, string(other))
				}
			}
			if len(of) < len(objects) {
				fmt.Fprintf(&b, "  (type %s)", strings.Join(of, ", "))
			}
			b.WriteString("\n")
			wrapTo(&b, "      ", width, o.Help)
			limits := "value: " + o.Allowed()
			if o.Default != "" {
				limits += "; default: " + o.Default
			}
			wrapTo(&b, "      ", width, limits)
		}
	}
	return map[string]string{"options": strings.TrimRight(b.String(), "\n")}
}

func portOptionsHelp() map[string]string {
	types := config.PortTypes()
	objects := make([]config.Object, len(types))
	for i, t := range types {
		objects[i] = config.Object(t)
	}
	return optionsHelp("a port (type="+strings.Join(types, "|")+"; "+types[0]+" when not given)", objects...)
}

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) getCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "get APP OBJECT",
		Short: "Show one object as desired and as observed",
		Long: "Show one object: where it is declared, what was observed of it, and where the two differ. -o yaml shows all of\n" +
			"the desired and of the observed object. OBJECT is a key as status and diff print it, or any part of one\n" +
			"that names only one object. Secrets are masked.",
		Example:           "  gitopsd get web File/motd\n  gitopsd get web host:host.gitopsd.io/File/motd -o yaml",
		Args:              arguments(2, 2, "APP OBJECT"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := ask(cmd.Context(), c, (*api.Client).GetObject, &pb.GetObjectRequest{Application: args[0], Object: args[1]})
			if err != nil {
				return err
			}
			if format != "text" {
				raw, err := objectJSON(res)
				if err != nil {
					return err
				}
				return printJSON(c.out, format, raw)
			}
			c.printObject(res)
			return nil
		},
	}
	formatFlag(cmd, &format, "text", "json", "yaml")
	return cmd
}

// objectJSON is the answer with the objects as structure instead of text.
func objectJSON(o *pb.GetObjectResponse) ([]byte, error) {
	value := func(s string) json.RawMessage {
		if s == "" {
			return json.RawMessage("null")
		}
		return json.RawMessage(s)
	}
	type fieldJSON struct {
		Path   string          `json:"path"`
		Op     string          `json:"op"`
		Cause  string          `json:"cause"`
		Before json.RawMessage `json:"before"`
		After  json.RawMessage `json:"after"`
	}
	fields := []fieldJSON{}
	for _, f := range o.Fields {
		fields = append(fields, fieldJSON{f.Path, f.Op, f.Cause, value(f.BeforeJson), value(f.AfterJson)})
	}
	return json.Marshal(map[string]any{
		"key": o.Key, "origin": o.Origin, "locator": o.Locator, "presence": o.Presence, "reason": o.Reason, "state": o.State,
		"observedAt": stampText(o.ObservedAt.AsTime()), "fields": fields, "desired": value(o.DesiredJson), "live": value(o.LiveJson),
	})
}

func (c *cli) printObject(o *pb.GetObjectResponse) {
	for _, line := range [][2]string{
		{"object", o.Key}, {"origin", o.Origin}, {"locator", o.Locator}, {"presence", o.Presence}, {"reason", o.Reason},
		{"inventory", o.State}, {"observed", stampText(o.ObservedAt.AsTime())},
	} {
		if line[1] != "" {
			fmt.Fprintf(c.out, "%-10s %s\n", line[0]+":", safe(line[1]))
		}
	}
	switch {
	case o.Presence == "Unknown":
		fmt.Fprintln(c.out, "whether it differs is not known")
		return
	case len(o.Fields) == 0:
		fmt.Fprintln(c.out, "no difference")
		return
	}
	fmt.Fprintln(c.out, "difference (live -> desired):")
	for _, f := range o.Fields {
		fmt.Fprintf(c.out, "  %s: %s -> %s (%s)\n", safe(f.Path), jsonValue(f.BeforeJson), jsonValue(f.AfterJson), safe(f.Cause))
	}
}

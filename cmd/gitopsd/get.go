package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

func (c *cli) getCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "get APP [OBJECT]",
		Short: "List the objects of an application, or show one",
		Long: "Without OBJECT, list what the application desires, owns, or left behind.\n\n" +
			"With OBJECT, show it: where it is declared, what was observed of it, and where the two differ. -o yaml shows all\n" +
			"of the desired and of the observed object. OBJECT is a key as status and diff print it, the name of an object,\n" +
			"or any part of a key that names only one object. Secrets are masked.",
		Example:           "  gitopsd get web\n  gitopsd get web File/motd\n  gitopsd get web host:host.gitopsd.io/File/motd -o yaml",
		Args:              arguments(1, 2, "APP [OBJECT]"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				return c.listObjects(cmd.Context(), args[0], format)
			}
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

func (c *cli) listObjects(ctx context.Context, app, format string) error {
	res, err := ask(ctx, c, (*api.Client).ListObjects, &pb.ListObjectsRequest{Application: app})
	if err != nil {
		return err
	}
	if format != "text" {
		return printMessage(c.out, format, res)
	}
	if len(res.Objects) == 0 {
		fmt.Fprintln(c.out, "no objects")
		return nil
	}
	t := &table{}
	t.header("OBJECT", "STATE", "HEALTH", "ORIGIN", "PROBLEM")
	for _, o := range res.Objects {
		health := o.Health
		if health == "" {
			health = o.Presence
		}
		t.row(cell{text: o.Key}, cell{text: o.State}, cell{health, stateColor(health)}, cell{text: o.Origin}, cell{text: o.Problem})
	}
	c.show(t)
	return nil
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
		"health": o.Health, "problem": o.Problem,
		"observedAt": stampText(o.ObservedAt.AsTime()), "fields": fields, "desired": value(o.DesiredJson), "live": value(o.LiveJson),
	})
}

func (c *cli) printObject(o *pb.GetObjectResponse) {
	for _, line := range [][2]string{
		{"object", o.Key}, {"origin", o.Origin}, {"locator", o.Locator}, {"presence", o.Presence}, {"reason", o.Reason},
		{"inventory", o.State}, {"health", o.Health}, {"problem", o.Problem}, {"observed", stampText(o.ObservedAt.AsTime())},
	} {
		if line[1] != "" {
			fmt.Fprintf(c.out, "%-10s %s\n", line[0]+":", safe(line[1]))
		}
	}
	switch {
	case o.Presence == "Unknown":
		fmt.Fprintln(c.out, "whether it differs is not known")
		return
	case len(o.Fields) == 0 && o.Problem != "":
		fmt.Fprintln(c.out, "no field differs")
		return
	case len(o.Fields) == 0:
		fmt.Fprintln(c.out, "no difference")
		return
	}
	fmt.Fprintln(c.out, "difference (live -> desired):")
	for _, f := range o.Fields {
		fmt.Fprintf(c.out, "  %s (%s)\n", fieldText(f), safe(f.Cause))
	}
}

package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	pb "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"
	"github.com/gitopsd/gitopsd/internal/api"
)

type statusFlags struct {
	format       string
	watch, diff  bool
	exitCode     bool
	applications []string
}

func (c *cli) statusCommand() *cobra.Command {
	var f statusFlags
	cmd := &cobra.Command{
		Use:   "status [APP...]",
		Short: "Show how the targets stand to Git",
		Long: "Show how the targets stand to Git.\n\n" +
			"With --exit-code the code is 0 when everything is in sync, 2 when something drifted or is out of sync,\n" +
			"3 when the state is stale or unknown; every other code is an error, as 7 when no daemon answers.",
		Example:           "  gitopsd status\n  gitopsd status web --diff\n  gitopsd status -o json | jq '.applications[].sync'",
		Args:              arguments(0, -1, "[APP...]"),
		ValidArgsFunction: c.applicationNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.applications = args
			if f.watch {
				return c.watchStatus(cmd.Context(), &f)
			}
			res, err := ask(cmd.Context(), c, (*api.Client).GetStatus, &pb.GetStatusRequest{Applications: args})
			if err != nil {
				return err
			}
			if f.exitCode {
				c.code = statusCode(res.Applications)
			}
			if err := c.printStatus(&f, res, res.Applications); err != nil {
				return err
			}
			return c.warnOfConfig(cmd.Context())
		},
	}
	formatFlag(cmd, &f.format, "table", "wide", "json", "yaml")
	cmd.Flags().BoolVarP(&f.watch, "watch", "w", false, "go on showing changes until interrupted")
	cmd.Flags().BoolVar(&f.diff, "diff", false, "list drifted fields, failures, gates, denials and orphans too")
	cmd.Flags().BoolVar(&f.exitCode, "exit-code", false, "tell the state by the exit code: 0 in sync, 2 drift or out of sync, 3 stale")
	return cmd
}

// warnOfConfig says, apart from the table, that the daemon does not run the
// configuration that is written down.
func (c *cli) warnOfConfig(ctx context.Context) error {
	info, err := ask(ctx, c, (*api.Client).Info, &pb.InfoRequest{})
	if err != nil || info.ConfigError == "" {
		return err
	}
	first, _, _ := strings.Cut(info.ConfigError, "\n")
	fmt.Fprintf(c.err, "%s the newest configuration was refused, and an older one runs: %s\n%s gitopsd doctor shows all of it\n",
		c.errPaint(yellow, "warning:"), safe(first), c.errPaint(cyan, "hint:"))
	return nil
}

// statusCode is the exit code of the worst application.
func statusCode(apps []*pb.ApplicationStatus) int {
	code := exitOK
	for _, a := range apps {
		switch {
		case a.Phase == "Orphaned": // nothing is desired of it any more
		case a.Sync == "Stale" || a.Sync == "Unknown":
			code = exitStale
		case code == exitOK && (a.Sync != "Synced" || a.GetObjects().GetDrifted() > 0):
			code = exitOutOfSync
		}
	}
	return code
}

func (c *cli) printStatus(f *statusFlags, m proto.Message, apps []*pb.ApplicationStatus) error {
	if f.format == "json" || f.format == "yaml" {
		return printMessage(c.out, f.format, m)
	}
	if len(apps) == 0 {
		fmt.Fprintln(c.out, "no applications are configured")
		return nil
	}
	details := make([]string, len(apps))
	if f.diff {
		for i, a := range apps {
			details[i] = c.statusDetails(a)
		}
	}
	c.show(c.statusTable(apps, details, f.format == "wide"))
	for i, a := range apps {
		switch {
		case f.diff:
			fmt.Fprint(c.out, details[i])
		case f.format == "wide":
			c.statusWarnings(c.out, a)
		}
	}
	return nil
}

// statusTable makes the table of applications; details is what is printed of each
// below it.
func (c *cli) statusTable(apps []*pb.ApplicationStatus, details []string, wide bool) *table {
	t := &table{}
	names := []string{"APPLICATION", "SYNC", "HEALTH", "REVISION", "OBJECTS", "DRIFT", "AGE"}
	if wide {
		names = append(names, "PHASE", "SOURCE", "PATH", "TARGETS", "CANDIDATE", "SYNCED")
	}
	t.header(append(names, "MESSAGE")...)
	for i, a := range apps {
		cells := []cell{
			{text: a.Application}, {a.Sync, stateColor(a.Sync)}, {a.Health, stateColor(a.Health)}, {text: short(a.Revision)},
			{text: strconv.Itoa(int(a.GetObjects().GetOwned()))}, driftCell(a), {text: observationAge(a)},
		}
		if wide {
			candidate := ""
			if a.Candidate != nil {
				candidate = short(a.Candidate.Revision) + " " + a.Candidate.State
			}
			synced := ""
			if a.SyncedAt != nil {
				synced = age(c.now().Sub(a.SyncedAt.AsTime())) + " ago"
			}
			cells = append(cells, cell{text: a.Phase}, cell{text: a.Source}, cell{text: a.Path},
				cell{text: strings.Join(a.Targets, ",")}, cell{text: candidate}, cell{text: synced})
		}
		t.row(append(cells, cell{text: unrepeated(a, details[i])})...)
	}
	return t
}

// unrepeated is the message without what the details say once more.
func unrepeated(a *pb.ApplicationStatus, details string) string {
	if details != "" && a.GetCandidate().GetState() == "Held" {
		return "needs an approval, see below"
	}
	for start := 0; start < len(a.Message); {
		if strings.Contains(details, safe(a.Message[start:])) {
			return strings.TrimPrefix(strings.TrimSuffix(a.Message[:start], ": ")+", see below", ", ")
		}
		i := strings.Index(a.Message[start:], ": ")
		if i < 0 {
			break
		}
		start += i + len(": ")
	}
	return a.Message
}

func driftCell(a *pb.ApplicationStatus) cell {
	n := int(a.GetObjects().GetDrifted())
	if n == 0 {
		return cell{text: "0"}
	}
	return cell{strconv.Itoa(n), yellow}
}

func observationAge(a *pb.ApplicationStatus) string {
	if a.ObservationAge == nil {
		return ""
	}
	return age(a.ObservationAge.AsDuration())
}

// stateColor is the colour of a sync or health word.
func stateColor(word string) color {
	switch word {
	case "Synced", "Healthy":
		return green
	case "OutOfSync", "Progressing", "Suspended":
		return yellow
	case "Degraded", "Missing", "Stale", "Unknown":
		return red
	default:
		return plain
	}
}

// statusDetails lists what the table only counts; "" when there is nothing.
func (c *cli) statusDetails(a *pb.ApplicationStatus) string {
	var b strings.Builder
	if s := a.Suspended; s != nil {
		until := "until resumed"
		if s.Until != nil {
			until = "until " + s.Until.AsTime().UTC().Format(time.RFC3339)
		}
		fmt.Fprintf(&b, "  suspended by %s, %s: %s\n", safe(s.By), until, safe(s.Why))
	}
	if k := a.Candidate; k != nil {
		fmt.Fprintf(&b, "  candidate %s is %s:\n", safe(short(k.Revision)), safe(k.State))
		if !repeated(k) {
			block(&b, "    | ", k.Reason)
		}
		for _, d := range k.Denied {
			fmt.Fprintf(&b, "    denied by %s: %s\n", safe(d.Rule), safe(d.Msg))
		}
		for _, g := range k.Gates {
			hint := ""
			if g.Hint != "" {
				hint = "; " + g.Hint
			}
			fmt.Fprintf(&b, "    needs approval (%s): %s%s\n", safe(g.Kind), safe(g.Message), safe(hint))
			for _, ch := range g.Changes {
				if ch.Removes != "" {
					fmt.Fprintf(&b, "      %s %s, which nobody declared (%s)\n", safe(ch.Action), safe(ch.Removes), safe(ch.Key))
					continue
				}
				fmt.Fprintf(&b, "      %s %s\n", safe(ch.Action), safe(ch.Key))
			}
		}
		if k.Digest != "" {
			fmt.Fprintf(&b, "    approve with: gitopsd approve %s --digest %s --why REASON\n", safe(a.Application), safe(k.Digest))
		}
	}
	for _, d := range a.Drift {
		fmt.Fprintf(&b, "  drift %s %s (%s)\n", safe(d.Key), fieldText(d.Change), c.driftNote(d))
	}
	for _, x := range a.Failures {
		verb := "failed"
		if x.Waits {
			verb = "waits"
		}
		place := ""
		if x.Origin != "" {
			place = " (" + safe(x.Origin) + ")"
		}
		fmt.Fprintf(&b, "  %s %s%s: %s\n", verb, safe(x.Key), place, safe(x.Message))
	}
	for _, x := range a.Warnings {
		fmt.Fprintf(&b, "  warning %s: %s\n", safe(x.Rule), safe(x.Msg))
	}
	for _, key := range a.Orphaned {
		fmt.Fprintf(&b, "  orphaned %s\n", safe(key))
	}
	if b.Len() == 0 {
		return ""
	}
	return fmt.Sprintf("\n%s:\n%s", safe(a.Application), b.String())
}

// statusWarnings lists what policies and targets said without anything being wrong.
func (c *cli) statusWarnings(w io.Writer, a *pb.ApplicationStatus) {
	if len(a.Warnings) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", safe(a.Application))
	for _, x := range a.Warnings {
		fmt.Fprintf(w, "  warning %s: %s\n", safe(x.Rule), safe(x.Msg))
	}
}

// repeated reports that the reason of a candidate says only what its denials and
// gates say.
func repeated(k *pb.Candidate) bool {
	for _, d := range k.Denied {
		if strings.Contains(k.Reason, d.Msg) {
			return true
		}
	}
	for _, g := range k.Gates {
		if strings.Contains(k.Reason, g.Message) {
			return true
		}
	}
	return false
}

// driftNote is why a field differs, since when, and what is done about it.
func (c *cli) driftNote(d *pb.DriftedField) string {
	note := "mode " + safe(d.Mode)
	if d.FirstSeen != nil {
		at := d.FirstSeen.AsTime()
		note = fmt.Sprintf("first seen %s, %s ago, %s", stampText(at), age(c.now().Sub(at)), note)
	}
	if cause := d.GetChange().GetCause(); cause != "" {
		note = "cause " + safe(cause) + ", " + note
	}
	if d.Seen > 1 {
		note += fmt.Sprintf(", %d times", d.Seen)
	}
	if d.Writer != "" {
		note += ", by " + safe(d.Writer)
	}
	if d.Contended {
		note += ", contended"
	}
	return note
}

// fieldText is one difference on one line. The field without a path is the whole
// object.
func fieldText(f *pb.FieldChange) string {
	if f.GetPath() == "" {
		return "deleted on the target"
	}
	return fmt.Sprintf("%s: %s -> %s", safe(f.Path), jsonValue(f.BeforeJson), jsonValue(f.AfterJson))
}

// jsonValue shows a JSON value, or that there is none.
func jsonValue(s string) string {
	if s == "" {
		return "(absent)"
	}
	return safe(string(escapeJSON([]byte(s))))
}

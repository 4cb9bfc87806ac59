package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// formatFlag adds -o with a closed set of values; the first is the default.
func formatFlag(cmd *cobra.Command, format *string, formats ...string) {
	cmd.Flags().StringVarP(format, "output", "o", formats[0], "format: "+strings.Join(formats, ", "))
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if !slices.Contains(formats, *format) {
			return hinted(fmt.Errorf("there is no format %q", *format), "choose one of %s", strings.Join(formats, ", "))
		}
		if before != nil {
			return before(cmd, args)
		}
		return nil
	}
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp)) // fails for unknown flags only
}

// printMessage writes an answer of the daemon as json, jsonl (one line) or yaml.
func printMessage(w io.Writer, format string, m proto.Message) error {
	// protojson varies its white space on purpose; encoding/json settles it.
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	return printJSON(w, format, raw)
}

func printJSON(w io.Writer, format string, raw []byte) error {
	var out bytes.Buffer
	switch format {
	case "json":
		if err := json.Indent(&out, raw, "", "  "); err != nil {
			return err
		}
		out.WriteByte('\n')
	case "jsonl":
		if err := json.Compact(&out, raw); err != nil {
			return err
		}
		out.WriteByte('\n')
	case "yaml":
		return printYAML(w, raw)
	default:
		return fmt.Errorf("there is no format %q", format)
	}
	_, err := w.Write(escapeJSON(out.Bytes()))
	return err
}

// escapeJSON spells out what a terminal might act on. Such characters occur
// inside strings only, where the escape means the same.
func escapeJSON(data []byte) []byte {
	var b bytes.Buffer
	for _, r := range string(data) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.Bytes()
}

// printYAML writes JSON as YAML for people. Characters that a terminal might act
// on are spelt out, as in tables.
func printYAML(w io.Writer, raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return err
	}
	safe, err := json.Marshal(safeValue(v))
	if err != nil {
		return err
	}
	data, err := yaml.JSONToYAML(safe)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

func safeValue(v any) any {
	switch v := v.(type) {
	case string:
		lines := strings.Split(v, "\n")
		for i := range lines {
			lines[i] = safe(lines[i])
		}
		return strings.Join(lines, "\n")
	case []any:
		for i := range v {
			v[i] = safeValue(v[i])
		}
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, e := range v {
			out[safe(k)] = safeValue(e)
		}
		return out
	}
	return v
}

package file

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/gitopsd/gitopsd/internal/manifest"
)

// config is the target's section of the configuration.
type config struct {
	// Prefix is a directory that stands for the root of the host: the paths of
	// Roots and of objects are below it. Default: the host itself.
	Prefix string `json:"prefix"`
	// Roots are absolute paths of directories; nothing outside is ever touched.
	Roots []string `json:"roots"`
	// Commands are what File.check and File.onChange may name.
	Commands map[string]command `json:"commands"`
	// Protected are paths that are refused with everything below them.
	Protected []string `json:"protected"`
	// CrossMounts allows paths that cross a mount point below a root. Default false.
	CrossMounts bool `json:"crossMounts"`
}

// command is a program of the administrator's that runs without a shell.
type command struct {
	// Run is the program and its arguments; "{file}" is the file to check.
	Run []string `json:"run"`
	// Timeout is a Go duration, after which the whole process group is killed. Default 30s.
	Timeout string `json:"timeout"`
	// Env is the whole environment besides PATH, as NAME=value.
	Env []string `json:"env"`

	limit time.Duration
}

const defaultTimeout = 30 * time.Second

// checks reports whether the command looks at a file given to it.
func (c command) checks() bool {
	return slices.ContainsFunc(c.Run, func(arg string) bool { return strings.Contains(arg, "{file}") })
}

func decodeConfig(raw json.RawMessage) (config, error) {
	var c config
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = json.RawMessage("{}")
	}
	if err := knownKeys(raw, "", []string{"prefix", "roots", "commands", "protected", "crossMounts"}); err != nil {
		return c, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, fmt.Errorf("file target: %w", err)
	}
	if c.Prefix != "" {
		if err := checkDir(c.Prefix); err != nil {
			return c, fmt.Errorf("prefix: %w", err)
		}
	}
	if len(c.Roots) == 0 {
		return c, errors.New("roots: name at least one directory that this target may change")
	}
	for i, r := range c.Roots {
		if err := checkDir(r); err != nil {
			return c, fmt.Errorf("roots[%d]: %w", i, err)
		}
		if slices.Contains(c.Roots[:i], r) {
			return c, fmt.Errorf("roots[%d]: %s is listed twice", i, r)
		}
	}
	for i, r := range c.Roots {
		c.Roots[i] = c.real(r)
	}
	for i, p := range c.Protected {
		if err := checkDir(p); err != nil {
			return c, fmt.Errorf("protected[%d]: %w", i, err)
		}
	}
	for name, cmd := range c.Commands {
		checked, err := cmd.validate()
		if err != nil {
			return c, fmt.Errorf("commands.%s: %w", name, err)
		}
		c.Commands[name] = checked
	}
	return c, nil
}

// real returns where a path of the configuration or of an object is on this host.
func (c config) real(p string) string { return path.Join("/", c.Prefix, p) }

func (c command) validate() (command, error) {
	if len(c.Run) == 0 || c.Run[0] == "" {
		return c, errors.New("run: want a list with the program and its arguments")
	}
	if p := c.Run[0]; strings.Contains(p, "/") && !strings.HasPrefix(p, "/") {
		return c, fmt.Errorf("run: program %q: want an absolute path, or a name that PATH finds; relative to what would be a guess", p)
	}
	c.limit = defaultTimeout
	if c.Timeout != "" {
		d, err := time.ParseDuration(c.Timeout)
		if err != nil || d <= 0 {
			return c, fmt.Errorf("timeout %q: want a positive duration, as in 30s", c.Timeout)
		}
		c.limit = d
	}
	for _, e := range c.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" {
			return c, fmt.Errorf("env: %q is not NAME=value", e)
		}
	}
	return c, nil
}

// knownKeys finds unknown keys with the nearest known one; the decoder alone
// would only name the stranger.
func knownKeys(raw json.RawMessage, at string, allowed []string) error {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("file target: %w", err)
	}
	for key, value := range m {
		if !slices.Contains(allowed, key) {
			return fmt.Errorf("%s%s: unknown field; %s", at, key, suggest(key, allowed))
		}
		if key != "commands" || at != "" {
			continue
		}
		var commands map[string]json.RawMessage
		if err := json.Unmarshal(value, &commands); err != nil {
			return fmt.Errorf("commands: %w", err)
		}
		for name, c := range commands {
			if err := knownKeys(c, "commands."+name+".", []string{"run", "timeout", "env"}); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkDir is checkPath for the configuration. Relative paths are refused: the
// section of a target does not know the file that it stands in.
func checkDir(p string) error {
	switch {
	case p == "/":
		return nil
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("path %q: want an absolute path; it is not taken as relative to the configuration file", p)
	}
	return checkPath(p)
}

// checkPath reports why a path has no place in a configuration or an object.
func checkPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("path %q: want an absolute path", p)
	case strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }):
		return fmt.Errorf("path %q: control characters and broken UTF-8 are not allowed", p)
	case slices.Contains(strings.Split(p, "/"), ".."):
		return fmt.Errorf("path %q: .. is not allowed", p)
	case path.Clean(p) != p || p == "/":
		return fmt.Errorf("path %q: write it as %q", p, path.Clean(p))
	case len(p) > 4000:
		return fmt.Errorf("path of %d bytes: at most 4000", len(p))
	}
	for _, part := range strings.Split(p, "/") {
		if len(part) > 255 {
			return fmt.Errorf("path %q: a name of %d bytes (at most 255)", p, len(part))
		}
	}
	return nil
}

// suggest says which known word was probably meant, or lists them.
func suggest(word string, known []string) string {
	if near := manifest.Nearest(word, known); near != "" {
		return "did you mean " + near + "?"
	}
	if len(known) == 0 {
		return "none are defined"
	}
	return "known are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
}

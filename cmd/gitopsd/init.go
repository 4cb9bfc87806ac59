package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

//go:embed skeleton
var skeleton embed.FS

func (c *cli) initCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write an example configuration to start from",
		Long: "Write a commented gitopsd.yaml, an example manifest and an example policy with its test into DIR (default: the\n" +
			"current directory), and make a folder there that stands for the host: what was written runs as it is. Nothing\n" +
			"that exists is overwritten.",
		Args: arguments(0, 1, "[DIR]"),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			return c.writeSkeleton(dir)
		},
	}
}

func (c *cli) writeSkeleton(dir string) error {
	files, err := fs.Sub(skeleton, "skeleton")
	if err != nil {
		return err
	}
	trial, err := filepath.Abs(filepath.Join(dir, "host"))
	if err != nil {
		return err
	}
	var names, there []string
	err = fs.WalkDir(files, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		names = append(names, name)
		if _, err := os.Lstat(filepath.Join(dir, name)); !errors.Is(err, fs.ErrNotExist) {
			there = append(there, filepath.Join(dir, name))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(there) > 0 {
		return hinted(fmt.Errorf("%s: already there, nothing was written", strings.Join(there, ", ")), "name an empty directory")
	}
	for _, name := range names {
		data, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		data = bytes.ReplaceAll(data, []byte(trialPlaceholder), []byte(trial))
		if err := writeNew(filepath.Join(dir, name), data); err != nil {
			return err
		}
		fmt.Fprintf(c.out, "wrote %s\n", safe(filepath.Join(dir, name)))
	}
	if err := os.MkdirAll(filepath.Join(trial, "etc"), 0o755); err != nil {
		return err
	}
	fmt.Fprintf(c.out, "made %s, which stands for the host\n", safe(filepath.Join(dir, "host")))
	config := filepath.Join(dir, "gitopsd.yaml")
	fmt.Fprintf(c.out, "\nnext: gitopsd validate %s --config %s\nthen: gitopsd run --config %s\nand:  gitopsd status\n",
		safe(filepath.Join(dir, "manifests")), safe(config), safe(config))
	return nil
}

// trialPlaceholder stands in the example for the absolute path of the folder
// that plays the host.
const trialPlaceholder = "/path/to/host"

// writeNew makes a file and its directory, and fails when there is one already.
func writeNew(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// MaxFile is the largest configuration file that is read.
const MaxFile = 4 << 20

// ReadFiles returns the content of a configuration file, or of all .yaml, .yml
// and .json files directly in a directory, by path. Names that start with a dot
// are left out, as editors and volume mounts use them for their own files.
func ReadFiles(path string) (map[string][]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w; name another file or directory with --config, or make an example with gitopsd init", err)
	}
	if !info.IsDir() {
		data, err := readFile(path)
		return map[string][]byte{path: data}, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	files := map[string][]byte{}
	var errs []error
	for _, e := range entries {
		ext := strings.ToLower(filepath.Ext(e.Name()))
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, ext) {
			continue
		}
		name := filepath.Join(path, e.Name())
		data, err := readFile(name)
		if err != nil {
			errs = append(errs, err)
		}
		files[name] = data
	}
	if len(files) == 0 && len(errs) == 0 {
		return nil, fmt.Errorf("configuration: directory %s holds no .yaml, .yml or .json file", path)
	}
	return files, errors.Join(errs...)
}

// readFile reads a regular file of at most MaxFile bytes.
func readFile(path string) ([]byte, error) {
	// Asked before opening: opening a pipe would wait for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("configuration: %s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(data) > MaxFile {
		return nil, fmt.Errorf("configuration: %s is larger than %d bytes; split it", path, MaxFile)
	}
	return data, nil
}

// LoadPath reads and loads the configuration at a path.
func LoadPath(path string) (*Config, error) {
	files, err := ReadFiles(path)
	if err != nil {
		return nil, err
	}
	return Load(files)
}

package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How long a configuration must be at rest before it is read, and how often it
// is read although nothing was noticed: a watch can miss what a mount replaces.
const (
	configSettle = 200 * time.Millisecond
	configPoll   = time.Minute
)

// watchConfig reloads the configuration when it may have changed, until ctx ends.
func (d *daemon) watchConfig(ctx context.Context) error {
	events := make(chan fsnotify.Event)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.Warn("configuration is not watched, only read every minute", "error", err)
	} else {
		defer watcher.Close()
		// The folder too: an editor or a volume replaces the file itself.
		for _, path := range []string{d.config, filepath.Dir(d.config)} {
			if err := watcher.Add(path); err != nil {
				d.log.Warn("configuration is not watched, only read every minute", "path", path, "error", err)
			}
		}
		events = watcher.Events
		go func() {
			for range watcher.Errors { // an overflow: the next poll makes up for it
			}
		}()
	}
	timer := time.NewTimer(configPoll)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			if e.Name == d.config || filepath.Dir(e.Name) == d.config {
				timer.Reset(configSettle)
			}
		case <-timer.C:
			d.reload(ctx)
			timer.Reset(configPoll)
		}
	}
}

//go:build failpoint

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	apiv1 "github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1"

	"connectrpc.com/connect"

	"github.com/gitopsd/gitopsd/internal/api"
)

// daemonProcess is one daemon, perhaps under a wrapper.
type daemonProcess struct {
	cmd  *exec.Cmd
	gone chan struct{} // closed when it has ended
	log  string        // path of what it said
}

// launch starts a daemon on gitopsd.yaml of a directory, with its state and its
// socket there and more in its environment; if they are given, under the program
// and arguments of a wrapper.
func launch(dir string, env []string, wrapper ...string) (*daemonProcess, error) {
	p := &daemonProcess{gone: make(chan struct{}), log: filepath.Join(dir, "log")}
	args := append(wrapper, "gitopsd", "run", "--config="+filepath.Join(dir, "gitopsd.yaml"),
		"--state-dir="+filepath.Join(dir, "state"), "--socket="+socketOf(dir), "--metrics-address=")
	// A file and no pipe: whoever inherits it does not keep Wait from returning.
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(os.Environ(), env...), log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a wrapper's death does not end what it wraps
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // killed, as asked for
		close(p.gone)
	}()
	return p, nil
}

func socketOf(dir string) string { return filepath.Join(dir, "s") }

// signal sends a signal to the daemon and its wrapper.
func (p *daemonProcess) signal(s syscall.Signal) {
	_ = syscall.Kill(-p.cmd.Process.Pid, s) // it may be gone already
}

func (p *daemonProcess) kill() {
	p.signal(syscall.SIGKILL)
	<-p.gone
}

// said is the end of the daemon's log.
func (p *daemonProcess) said() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-20_000):])
}

// ends does work until it is finished, the daemon has died by itself, or limit
// has passed.
func (p *daemonProcess) ends(ctx context.Context, limit time.Duration, work func(context.Context) error) (finished, died bool) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	select {
	case <-p.gone:
		cancel()
		<-done
		return false, true
	case err := <-done:
		return err == nil, false
	}
}

// watchStatus asks the daemon of a directory for its status until it is as
// wanted, for a round first if sync is set. The error is what was missing last.
func watchStatus(ctx context.Context, dir string, sync bool, wanted func([]*apiv1.ApplicationStatus) error) error {
	var client *api.Client
	again := func(err error) bool {
		pause(5 * time.Millisecond)
		return err != nil && ctx.Err() == nil
	}
	for {
		var err error
		if client, err = api.Dial(ctx, socketOf(dir)); err == nil {
			break
		}
		if !again(err) {
			return err
		}
	}
	defer client.Close()
	for {
		err := func() error {
			ctx, cancel := context.WithTimeout(ctx, 5*time.Second) // a daemon that was hit may never answer
			defer cancel()
			if sync {
				if _, err := client.Sync(ctx, connect.NewRequest(&apiv1.SyncRequest{})); err != nil {
					return err
				}
				sync = false
			}
			res, err := client.GetStatus(ctx, connect.NewRequest(&apiv1.GetStatusRequest{}))
			if err != nil {
				return err
			}
			return wanted(res.Msg.GetApplications())
		}()
		if err == nil || !again(err) {
			return err
		}
	}
}

// verifyAudit has the daemon of a directory verify its audit log.
func verifyAudit(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := api.Dial(ctx, socketOf(dir))
	if err != nil {
		return err
	}
	defer client.Close()
	res, err := client.VerifyAudit(ctx, connect.NewRequest(&apiv1.VerifyAuditRequest{}))
	if err == nil && res.Msg.GetError() != "" {
		err = fmt.Errorf("audit: %s", res.Msg.GetError())
	}
	return err
}

package bolt_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/gitopsd/gitopsd/internal/store"
	"github.com/gitopsd/gitopsd/internal/store/bolt"
	"github.com/gitopsd/gitopsd/internal/store/storetest"
)

// TestMain is also the main function of the second processes that tests start.
func TestMain(m *testing.M) {
	if path := os.Getenv("BOLT_TEST_STORE"); path != "" {
		if err := second(path, os.Getenv("BOLT_TEST_DO")); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// second is what a second process does: hold the store until its input ends, or
// commit until it is killed, naming each revision once it is durable.
func second(path, do string) error {
	s, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return err
	}
	fmt.Println("open")
	for do == "commit" {
		revision, err := s.Commit(context.Background(), 1, nil, []store.Op{{Key: "a", Value: []byte("x")}, {Key: "b", Value: []byte("x")}})
		if err != nil {
			return err
		}
		fmt.Println(revision)
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// process is a second process at work on a store.
type process struct {
	*exec.Cmd
	out *bufio.Scanner
}

// start starts a second process and waits until it has the store open.
func start(t *testing.T, path, do string) process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BOLT_TEST_STORE="+path, "BOLT_TEST_DO="+do)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := process{Cmd: cmd, out: bufio.NewScanner(out)}
	if !p.out.Scan() || p.out.Text() != "open" {
		t.Fatalf("the second process said %q", p.out.Text())
	}
	return p
}

// kill kills the process and waits for its end.
func (p process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait() // says that it was killed
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Harness {
		path := filepath.Join(t.TempDir(), "state", "store.db")
		return storetest.Harness{Open: func() (store.Store, error) { return bolt.Open(path, bolt.Options{}) }}
	})
}

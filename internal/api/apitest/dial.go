package apitest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/api/gitopsd/v1alpha1/gitopsdv1alpha1connect"
)

// Caller is a user of the host as the kernel knows a process of theirs.
type Caller struct {
	UID, GID int
	Groups   []uint32 // supplementary ones
}

// ClientAs returns a client whose connections to socket a process of who has
// made, with no more rights on the file of the socket than theirs. Needs root;
// the test is skipped without.
func ClientAs(t testing.TB, socket string, who Caller) gitopsdv1alpha1connect.ControlServiceClient {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: only root can call as another user; run this test as root to hold who may do what over a real socket")
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return dialAs(ctx, socket, who)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return gitopsdv1alpha1connect.NewControlServiceClient(&http.Client{Transport: transport}, "http://gitopsd")
}

// dialAs connects from a thread that has become another user. The thread ends
// with its goroutine, which stays locked to it; the rest of the process, which
// the raw system calls do not touch, stays who it is. The main thread cannot end,
// and so it is only held while another one is taken.
func dialAs(ctx context.Context, socket string, who Caller) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			conn, err = dialAs(ctx, socket, who)
			runtime.UnlockOSThread()
			return
		}
		if err = become(who); err != nil {
			return
		}
		conn, err = new(net.Dialer).DialContext(ctx, "unix", socket)
	}()
	<-done
	return conn, err
}

func become(who Caller) error {
	groups := append([]uint32{}, who.Groups...)
	groups = append(groups, 0) // so that there is a first one to point at
	_, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(who.Groups)), uintptr(unsafe.Pointer(&groups[0])), 0)
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_SETRESGID, uintptr(who.GID), uintptr(who.GID), uintptr(who.GID))
	}
	if errno == 0 {
		_, _, errno = unix.RawSyscall(unix.SYS_SETRESUID, uintptr(who.UID), uintptr(who.UID), uintptr(who.UID))
	}
	if errno != 0 {
		return fmt.Errorf("become uid %d: %w", who.UID, errno)
	}
	return nil
}

// Dir is a temporary directory that every user of the host can pass through.
func Dir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

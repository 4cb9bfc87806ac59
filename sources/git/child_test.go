package git

import (
	"bytes"
	"compress/flate"
	"compress/zlib"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
)

// fetcherArg is the argument by which fetching processes are known here.
const fetcherArg = "serve-fetch"

// buildFetcher builds the fetching process as gitopsd is built: static, and
// without a race detector, whose memory would count.
func buildFetcher(t *testing.T) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fetcher")
	cmd := exec.Command("go", "build", "-o", path, "./testdata/fetcher")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return []string{path, fetcherArg}
}

// packOf makes a pack of raw entries.
func packOf(entries ...[]byte) []byte {
	var b bytes.Buffer
	b.WriteString("PACK")
	b.Write(binary.BigEndian.AppendUint32(nil, 2))
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(entries))))
	for _, e := range entries {
		b.Write(e)
	}
	sum := sha1.Sum(b.Bytes())
	return append(b.Bytes(), sum[:]...)
}

const (
	packCommit   = 1
	packTree     = 2
	packBlob     = 3
	packOfsDelta = 6
	packRefDelta = 7
)

// packEntry is one object of a pack: its kind and declared size, the distance to
// its base for a delta, and its content as zlib has it.
func packEntry(kind byte, size, back uint64, content []byte) []byte {
	out := []byte{kind<<4 | byte(size&15)}
	for size >>= 4; size > 0; size >>= 7 {
		out[len(out)-1] |= 0x80
		out = append(out, byte(size&0x7f))
	}
	if kind == packOfsDelta {
		offset := []byte{byte(back & 0x7f)}
		for back >>= 7; back > 0; back >>= 7 {
			back--
			offset = append([]byte{0x80 | byte(back&0x7f)}, offset...)
		}
		out = append(out, offset...)
	}
	return append(out, content...)
}

func deflated(s string) []byte {
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	_, _ = z.Write([]byte(s))
	_ = z.Close() // a buffer takes all
	return b.Bytes()
}

// zeros is n MiB of nothing as zlib has it, in about n KiB: the same block again
// and again, which is much faster than to compress it all.
func zeros(n int) []byte {
	var block bytes.Buffer
	f, _ := flate.NewWriter(&block, flate.BestCompression) // a known level
	_, _ = f.Write(make([]byte, mib))
	_ = f.Flush()
	out := append([]byte{0x78, 0x9c}, bytes.Repeat(block.Bytes(), n)...)
	out = append(out, 0x01, 0x00, 0x00, 0xff, 0xff)                              // the last block, empty
	return binary.BigEndian.AppendUint32(out, uint32(n*mib%65521)<<16|uint32(1)) // Adler-32 of zeros
}

// deltaBomb repeats a base of 64 KiB until it is size bytes: 5 bytes for 64 KiB.
func deltaBomb(size int) []byte {
	base := strings.Repeat("gitopsd.", 8192)
	first := packEntry(packBlob, uint64(len(base)), 0, deflated(base))
	d := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(len(base))), uint64(size))
	for range size / len(base) {
		d = append(d, 0x80) // copy 64 KiB from offset 0
	}
	return packOf(first, packEntry(packOfsDelta, uint64(len(d)), uint64(len(first)), deflated(string(d))))
}

// A pack that unpacks to far more than it is (row A-7) is refused with the limit
// that it breaks and its name, by a process that stays below its memory. Without
// the limit on objects the process ends when it reaches that of memory, and
// nothing else does.
func TestBombs(t *testing.T) {
	child := buildFetcher(t)
	large := packOf(packEntry(packBlob, 1024*mib, 0, zeros(1024)))
	if len(large) > 3*mib/2 {
		t.Fatalf("the bomb has %d bytes, which is no bomb", len(large))
	}
	wide := Limits{ObjectBytes: 4 * gib, UnpackedBytes: 8 * gib, MemoryBytes: 256 * mib}
	for name, c := range map[string]struct {
		pack   []byte
		limits Limits
		want   string
	}{
		"1 GiB in an object": {large, Limits{}, "git.limits.objectMiB"},
		"1 GiB by a delta":   {deltaBomb(gib), Limits{}, "git.limits.objectMiB"},
		"1 GiB in many":      {packOf(slices.Repeat([][]byte{packEntry(packBlob, 8*mib, 0, zeros(8))}, 130)...), Limits{UnpackedBytes: gib}, "git.limits.unpackedMiB"},
		"a size that lies":   {packOf(packEntry(packBlob, 10, 0, zeros(1))), Limits{}, "broken pack"},
		"no room":            {packOf(packEntry(packBlob, 400*mib, 0, zeros(400))), wide, "git.limits.memoryMiB"},
		"no room for deltas": {deltaBomb(400 * mib), wide, "git.limits.memoryMiB"},
	} {
		t.Run(name, func(t *testing.T) {
			p, h := webPlace(t, gittest.HTTPOptions{})
			p.repo.Write("main", map[string]string{"a": "1"})
			p.options.Dir, p.options.Child, p.options.Limits = t.TempDir(), child, c.limits
			r := mustOpen(t, p.options)
			id := p.repo.Ref(mainRef)
			h.InterceptPacks(sendPack(func() []byte { return c.pack }))
			err := r.Fetch(t.Context(), mainRef, id)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Fetch: %v, want something about %s", err, c.want)
			}
			if c.want != "broken pack" && !errors.Is(err, sources.ErrRefused) {
				t.Errorf("Fetch: %v, want ErrRefused", err)
			}
			h.InterceptPacks(nil)
			if err := r.Fetch(t.Context(), mainRef, id); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if left, err := filepath.Glob(filepath.Join(r.MirrorDir(), "objects/pack/tmp_*")); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
		})
	}
	var use unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_CHILDREN, &use); err != nil {
		t.Fatal(err)
	}
	if use.Maxrss > 512<<10 {
		t.Errorf("the largest process took %d KiB", use.Maxrss)
	}
}

// The same bomb in a repository on this host.
func TestLocalBomb(t *testing.T) {
	repo := gittest.NewRepo(t)
	repo.Commit("main", map[string]gittest.File{"bomb": {Data: strings.Repeat("\x00", 2*mib)}})
	r := mustOpen(t, Options{URL: repo.Dir, Dir: t.TempDir(), Child: buildFetcher(t), Limits: Limits{ObjectBytes: mib}})
	err := r.Fetch(t.Context(), mainRef, repo.Ref(mainRef))
	if !errors.Is(err, sources.ErrRefused) || !strings.Contains(err.Error(), "git.limits.objectMiB") {
		t.Errorf("Fetch: %v", err)
	}
}

// stalled starts a fetch that does not end, and returns the process that fetches
// and what ends it all.
func stalled(t *testing.T) (r *Repository, pid string, result chan error, end func()) {
	const user, secret = "robot", "s3cret-canary"
	p, h := webPlace(t, gittest.HTTPOptions{User: user, Password: secret})
	p.repo.Write("main", map[string]string{"a": "1"})
	p.options.Dir, p.options.Child = t.TempDir(), buildFetcher(t)
	r = mustOpen(t, p.options)
	arrived := make(chan struct{})
	h.InterceptPacks(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else nobody notices that the client goes
		close(arrived)
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	result = make(chan error, 1)
	go func() { result <- r.Fetch(ctx, mainRef, p.repo.Ref(mainRef)) }()
	select {
	case <-arrived:
	case err := <-result:
		t.Fatal(err)
	}
	return r, fetchers(t)[0], result, cancel
}

// fetchers lists the fetching processes that this one has started.
func fetchers(t *testing.T) (pids []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		list, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for _, pid := range strings.Fields(string(list)) {
			if line, err := os.ReadFile("/proc/" + pid + "/cmdline"); err == nil && strings.Contains(string(line), fetcherArg) {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// The process is ended with the call that started it, the mirror is free
// afterwards, and no secret is in what others may read of a process (row A-20).
func TestStalledChild(t *testing.T) {
	r, pid, result, end := stalled(t)
	for _, name := range []string{"cmdline", "environ"} {
		data, err := os.ReadFile(filepath.Join("/proc", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("canary")) {
			t.Errorf("%s of the process: %q", name, data)
		}
	}
	limits, err := os.ReadFile(filepath.Join("/proc", pid, "limits"))
	if err != nil || !strings.Contains(string(limits), fmt.Sprintf("Max data size             %d", 512*mib)) {
		t.Errorf("limits: %s, %v", limits, err)
	}
	end()
	if err := <-result; !errors.Is(err, sources.ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch: %v", err)
	}
	if left := fetchers(t); len(left) > 0 {
		t.Errorf("%v are still there", left)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	unlock, err := r.mirror.lock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

// A process that somebody kills is a failed fetch and nothing more.
func TestKilledChild(t *testing.T) {
	_, pid, result, _ := stalled(t)
	var n int
	if _, err := fmt.Sscan(pid, &n); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(n, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, sources.ErrUnavailable) || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Fetch: %v", err)
	}
}

// An error keeps its class on the way from one process to the other, and shows
// no secret.
func TestErrorsOfTheChild(t *testing.T) {
	for i, class := range classes {
		if err := (&reported{text: "text", class: class}); !errors.Is(err, class) || err.Error() != "text" {
			t.Errorf("class %d: %v", i, err)
		}
	}
	p, _ := webPlace(t, gittest.HTTPOptions{User: "robot", Password: "s3cret-canary"})
	p.repo.Write("main", map[string]string{"a": "1"})
	p.options.Dir, p.options.Child = t.TempDir(), buildFetcher(t)
	p.options.Auth.Password = File(write(t, "password", "wrong-canary"))
	r := mustOpen(t, p.options)
	err := r.Fetch(t.Context(), mainRef, p.repo.Ref(mainRef))
	if !errors.Is(err, sources.ErrUnauthorized) || strings.Contains(err.Error(), "canary") {
		t.Errorf("Fetch: %v", err)
	}
}

package git

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/gitopsd/gitopsd/internal/gittest"
	"github.com/gitopsd/gitopsd/sources"
)

// patience is how long a poll of these tests may take; slack is how much later
// its end may be noticed on a busy machine.
const (
	patience = 300 * time.Millisecond
	slack    = 10 * time.Second
)

// evil is a server that answers as it likes.
type evil struct {
	name   string
	answer http.HandlerFunc
	class  error
	says   string // in the error, besides the repository
	slow   bool   // it would go on for ever and is left at the deadline
}

// drip sends data a byte at a time and never more of it than that.
func drip(w http.ResponseWriter, r *http.Request, data string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range len(data) {
		if _, err := io.WriteString(w, data[i:i+1]); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// forever repeats data until the client goes away.
func forever(w io.Writer, r *http.Request, data string) {
	for chunk := []byte(strings.Repeat(data, 1+60_000/len(data))); r.Context().Err() == nil; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

const (
	advertisement = "application/x-git-upload-pack-advertisement"
	result        = "application/x-git-upload-pack-result"
	greeting      = "001e# service=git-upload-pack\n0000"
)

// typed answers with a content type of Git's, after it has read the request:
// else nobody notices that the client goes.
func typed(kind string, f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", kind)
		f(w, r)
	}
}

// text answers with these bytes.
func text(kind, s string) http.HandlerFunc {
	return typed(kind, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s) })
}

// stall answers with these bytes and no end.
func stall(kind, s string) http.HandlerFunc {
	return typed(kind, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, s)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
}

// inflated answers with what grows without end when it is unpacked.
func inflated(kind, start, again string) http.HandlerFunc {
	return typed(kind, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, start)
		forever(z, r, again)
	})
}

// check asks an evil server by call, which has to end with a fitting error in
// bounded time, while another source works.
func (e evil) check(t *testing.T, r, other *Repository, call func(context.Context) error) {
	t.Helper()
	limit := 2 * time.Minute
	if e.slow {
		limit = patience
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start, healthy := time.Now(), make(chan error, 1)
	go func() {
		_, err := other.Refs(t.Context(), mainRef)
		healthy <- err
	}()
	err := call(ctx)
	took := time.Since(start)
	if werr := <-healthy; werr != nil {
		t.Errorf("%s: another source: %v", e.name, werr)
	}
	if !errors.Is(err, e.class) || !strings.Contains(err.Error(), e.says) || !strings.Contains(err.Error(), r.String()) {
		t.Errorf("%s: the error is %v, want %v about %q", e.name, err, e.class, e.says)
	}
	if late := errors.Is(err, context.DeadlineExceeded); late != e.slow || late && !strings.Contains(err.Error(), "git.timeout") {
		t.Errorf("%s: whether the deadline ended it: %v", e.name, err)
	}
	if e.slow && took > limit+slack {
		t.Errorf("%s: took %s", e.name, took)
	}
	if left, err := filepath.Glob(filepath.Join(r.MirrorDir(), "objects/pack/*")); err != nil || len(left) > 0 {
		t.Errorf("%s: left behind: %v, %v", e.name, left, err)
	}
}

// heap fails the test when the process has taken much more memory since.
func heap(t *testing.T) (check func()) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	return func() {
		runtime.ReadMemStats(&after)
		if before.HeapSys+512*mib < after.HeapSys {
			t.Errorf("the heap grew from %d to %d MiB", before.HeapSys/mib, after.HeapSys/mib)
		}
	}
}

// whatever answers the request for refs, and however slowly, the call
// ends with what is wrong, and takes bounded memory: it runs in the daemon.
func TestEvilRefs(t *testing.T) {
	defer heap(t)()
	healthy, _ := webPlace(t, gittest.HTTPOptions{})
	healthy.repo.Write("main", map[string]string{"a": "1"})
	other, _ := fetched(t, healthy)
	p, h := webPlace(t, gittest.HTTPOptions{})
	id := p.repo.Write("main", map[string]string{"a": "1"})
	p.options.Dir = t.TempDir()
	r := mustOpen(t, p.options)
	first := pkt(id + " " + mainRef + "\x00 ofs-delta side-band-64k\n")
	refs := greeting + first
	more := pkt(id + " refs/heads/x\n")
	numbered := typed(advertisement, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, refs)
		var chunk bytes.Buffer
		for i := range 1000 {
			chunk.WriteString(pkt(fmt.Sprintf("%s refs/heads/%s%03d/0000\n", id, strings.Repeat("x", 200), i)))
		}
		line := chunk.Len() / 1000
		for n := 0; r.Context().Err() == nil; n++ {
			number := fmt.Sprintf("%04d", n)
			for end := line; end <= chunk.Len(); end += line {
				copy(chunk.Bytes()[end-5:], number)
			}
			if _, err := w.Write(chunk.Bytes()); err != nil {
				return
			}
		}
	})
	for _, e := range []evil{
		{"refs without end", numbered, sources.ErrRefused, "more than 64 MiB of refs", false},
		{"refs that grow when unpacked", inflated(advertisement, refs, pkt(id+" refs/heads/"+strings.Repeat("x", 60_000)+"\n")), sources.ErrRefused, "more than 64 MiB of refs", false},
		{"a byte now and then", typed(advertisement, func(w http.ResponseWriter, r *http.Request) { drip(w, r, strings.Repeat(refs, 1000)) }), sources.ErrUnavailable, "deadline", true},
		{"no end", stall(advertisement, refs), sources.ErrUnavailable, "deadline", true},
		{"no beginning", stall(advertisement, ""), sources.ErrUnavailable, "deadline", true},
		{"empty lines", typed(advertisement, func(w http.ResponseWriter, r *http.Request) { forever(w, r, "0004") }), sources.ErrUnavailable, "not Git's", false},
		{"a line without length", text(advertisement, greeting+"0003"), sources.ErrUnavailable, "not Git's or was cut", false},
		{"a line longer than lines are", text(advertisement, greeting+"ffff"+strings.Repeat("x", 70_000)), sources.ErrUnavailable, "not Git's or was cut", false},
		{"a line longer than the answer", text(advertisement, greeting+"0fff"+id), sources.ErrUnavailable, "not Git's or was cut", false},
		{"cut at 99 %", text(advertisement, refs+more[:len(more)-1]), sources.ErrUnavailable, "not Git's or was cut", false},
		{"a length that lies", typed(advertisement, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, refs)
		}), sources.ErrUnavailable, "not Git's or was cut", false},
		{"a page that says it is Git", text(advertisement, "<!DOCTYPE html><p>Log in"), sources.ErrUnavailable, "not Git's or was cut", false},
		{"a page", gittest.Status(http.StatusOK), sources.ErrUnavailable, "login or maintenance page", false},
		{"a redirect to itself", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }, sources.ErrUntrusted, "redirected", false},
		{"headers without end", func(w http.ResponseWriter, _ *http.Request) {
			for i := range 20_000 {
				w.Header().Set(fmt.Sprint("X-", i), strings.Repeat("x", 1000))
			}
		}, sources.ErrUnavailable, "header", false},
	} {
		h.Intercept(e.answer)
		e.check(t, r, other, func(ctx context.Context) error {
			refs, err := r.Refs(ctx, mainRef)
			if refs != nil {
				t.Errorf("%s: the refs are %v", e.name, refs)
			}
			return err
		})
	}
	h.Intercept(nil)
	if got := fetchMain(t, r); got != id {
		t.Errorf("afterwards main is %s", got)
	}
}

// sealed ends a pack with its checksum.
func sealed(b []byte) []byte {
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

// counted is a pack that claims another number of objects.
func counted(pack []byte, change int) []byte {
	b := bytes.Clone(pack[:len(pack)-sha1.Size])
	binary.BigEndian.PutUint32(b[8:], uint32(int(binary.BigEndian.Uint32(b[8:]))+change))
	return sealed(b)
}

// stored is a short text as zlib has it, uncompressed.
func stored(s string) []byte {
	out := []byte{0x78, 0x01, 0x01, byte(len(s)), 0, ^byte(len(s)), 0xff}
	return binary.BigEndian.AppendUint32(append(out, s...), adler32.Checksum([]byte(s)))
}

// chained are the entries of a file and of n deltas, each of the one before, and
// the content of the last.
func chained(n int) (entries [][]byte, last string) {
	body := strings.Repeat("x", 96)
	entries = append(entries, packEntry(packBlob, 100, 0, deflated(body+"0000")))
	for i := range n {
		last = body + fmt.Sprintf("%04x", i+1)
		d := string([]byte{100, 100, 0x90, 96, 4}) + last[96:] // copy 96 bytes, add 4
		entries = append(entries, packEntry(packOfsDelta, uint64(len(d)), uint64(len(entries[i])), stored(d)))
	}
	return entries, last
}

// sideband wraps a pack as it is sent.
func sideband(pack []byte) string {
	var b strings.Builder
	b.WriteString(pkt("NAK\n"))
	for len(pack) > 0 {
		n := min(len(pack), 60_000)
		b.WriteString(pkt("\x01" + string(pack[:n])))
		pack = pack[n:]
	}
	return b.String()
}

// honestPack is all that leads from a branch, as one pack.
func honestPack(t *testing.T, repo *gittest.Repo) []byte {
	t.Helper()
	all := &collector{from: &store{dir: repo.Dir}, has: func(plumbing.Hash) bool { return false }, seen: map[plumbing.Hash]bool{}}
	defer all.from.reload()
	if err := all.add(t.Context(), plumbing.NewHash(repo.Ref(mainRef))); err != nil {
		t.Fatal(err)
	}
	var pack bytes.Buffer
	if err := all.from.encode(&pack, all.out); err != nil {
		t.Fatal(err)
	}
	return pack.Bytes()
}

// the same for content. What came of it until then is gone, and
// the next fetch from a better server succeeds.
func TestEvilPacks(t *testing.T) {
	t.Parallel()
	healthy, _ := webPlace(t, gittest.HTTPOptions{})
	healthy.repo.Write("main", map[string]string{"a": "1"})
	other, _ := fetched(t, healthy)
	p, h := webPlace(t, gittest.HTTPOptions{})
	id := p.repo.Write("main", map[string]string{"a": strings.Repeat("one ", 5000) + "1", "d/b": "2"})
	p.options.Dir, p.options.Limits.PackBytes = t.TempDir(), 8*mib
	r := mustOpen(t, p.options)
	good := honestPack(t, p.repo)
	whole := sideband(good) + "0000"
	flipped := bytes.Clone(good)
	flipped[len(flipped)-30] ^= 1
	deep, _ := chained(10_000)
	blob := packEntry(packBlob, 5, 0, deflated("hello"))
	base := plumbing.NewHash(strings.Repeat("1", 40))
	delta := string([]byte{5, 5, 0x90, 5}) // copy all 5 bytes
	beyond := string([]byte{5, 9, 0x91, 200, 9})
	again := func(lines string) http.HandlerFunc {
		return typed(result, func(w http.ResponseWriter, r *http.Request) { forever(w, r, lines) })
	}
	const broken = "the server sent a broken pack"
	cases := []evil{
		{"acknowledgements without end", again(pkt("ACK " + id + " common\n")), sources.ErrUnavailable, "talks without end", false},
		{"progress without end", typed(result, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, pkt("NAK\n"))
			forever(w, r, pkt("\x02Counting objects: 1% (1/100)\r"))
		}), sources.ErrUnavailable, "talks without end", false},
		{"lines of nothing without end", typed(result, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, pkt("NAK\n"))
			forever(w, r, pkt("\x01"))
		}), sources.ErrUnavailable, "talks without end", false},
		{"progress that grows when unpacked", inflated(result, pkt("NAK\n"), pkt("\x02"+strings.Repeat(" ", 60_000))), sources.ErrUnavailable, "talks without end", false},
		{"a pack without end", typed(result, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, pkt("NAK\n"))
			forever(w, r, pkt("\x01"+strings.Repeat("x", 60_000)))
		}), sources.ErrRefused, "git.limits.packMiB", false},
		{"a byte now and then", typed(result, func(w http.ResponseWriter, r *http.Request) { drip(w, r, strings.Repeat(whole, 10)) }), sources.ErrUnavailable, "deadline", true},
		{"a word now and then", typed(result, func(w http.ResponseWriter, r *http.Request) {
			drip(w, r, pkt("NAK\n")+strings.Repeat(pkt("\x02still counting"), 1000))
		}), sources.ErrUnavailable, "deadline", true},
		{"a stall at 99 %", stall(result, whole[:len(whole)*99/100]), sources.ErrUnavailable, "deadline", true},
		{"no end after all", stall(result, sideband(good)), sources.ErrUnavailable, "deadline", true},
		{"no beginning", stall(result, ""), sources.ErrUnavailable, "deadline", true},
		{"cut at 99 %", text(result, whole[:len(whole)*99/100]), sources.ErrUnavailable, "the answer was cut", false},
		{"cut by the network", typed(result, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, whole[:len(whole)/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}), sources.ErrUnavailable, "the answer was cut", false},
		{"a line without length", text(result, pkt("NAK\n")+"0002"), sources.ErrUnavailable, "the answer was cut", false},
		{"a length that is none", text(result, pkt("NAK\n")+"-1-1"), sources.ErrUnavailable, "the answer was cut", false},
		{"a line longer than lines are", text(result, pkt("NAK\n")+"ffff\x01"+strings.Repeat("x", 70_000)), sources.ErrUnavailable, "the answer was cut", false},
		{"another channel", text(result, pkt("NAK\n")+pkt("\x09hello")), sources.ErrUnavailable, "the server says", false},
		{"an error", text(result, pkt("NAK\n")+pkt("\x03out of \x1b[31mdisk")), sources.ErrUnavailable, "the server says: out of  [31mdisk", false},
		{"an error at once", text(result, pkt("ERR upload-pack: not our ref")), sources.ErrUnavailable, "not our ref", false},
		{"a page that says it is Git", text(result, "<!DOCTYPE html><p>Log in"), sources.ErrUnavailable, "the answer was cut", false},
		{"a page", gittest.Status(http.StatusOK), sources.ErrUnavailable, "login or maintenance page", false},
		{"refs again", text(advertisement, greeting), sources.ErrUnavailable, "login or maintenance page", false},
	}
	for code, class := range map[int]error{
		401: sources.ErrUnauthorized, 403: sources.ErrUnauthorized, 404: sources.ErrUnavailable, 410: sources.ErrUnavailable,
		413: sources.ErrUnavailable, 429: sources.ErrUnavailable, 500: sources.ErrUnavailable, 502: sources.ErrUnavailable, 503: sources.ErrUnavailable,
	} {
		cases = append(cases, evil{fmt.Sprint("status ", code), gittest.Status(code), class, fmt.Sprint("status ", code), false})
	}
	for name, c := range map[string]struct {
		pack []byte
		says string
	}{
		"one object more than there is":   {counted(good, 1), broken},
		"one object less":                 {counted(good, -1), broken},
		"very many objects":               {counted(good, 1<<30), "claims 107374"},
		"no object":                       {counted(packOf(), 0), "did not send it"},
		"a byte is another":               {flipped, broken},
		"another checksum":                {append(bytes.Clone(good[:len(good)-1]), good[len(good)-1]^1), broken},
		"more after the end":              {append(bytes.Clone(good), good...), broken},
		"10,000 deltas on each other":     {packOf(deep...), broken},
		"a delta of itself":               {packOf(blob, packEntry(packOfsDelta, 4, 0, deflated(delta))), broken},
		"a delta of what is before all":   {packOf(packEntry(packOfsDelta, 4, 1<<40, deflated(delta))), broken},
		"a delta of what is not there":    {packOf(blob, packEntry(packRefDelta, 4, 0, append(base[:], deflated(delta)...))), broken},
		"a delta that copies from beyond": {packOf(blob, packEntry(packOfsDelta, 5, uint64(len(blob)), deflated(beyond))), broken},
	} {
		class := sources.ErrUnavailable
		if strings.HasPrefix(c.says, "claims") {
			class = sources.ErrRefused
		}
		cases = append(cases, evil{name, text(result, sideband(c.pack)+"0000"), class, c.says, false})
	}
	for _, e := range cases {
		h.InterceptPacks(e.answer)
		e.check(t, r, other, func(ctx context.Context) error {
			return r.Fetch(ctx, mainRef, id)
		})
		if _, err := r.Open(t.Context(), id); err == nil {
			t.Errorf("%s: the revision opens", e.name)
		}
	}
	h.InterceptPacks(nil)
	if got := fetchMain(t, r); got != id {
		t.Errorf("afterwards main is %s", got)
	}
}

// deltas nearly as deep as git can make them are no attack, and are read.
func TestDeepDeltas(t *testing.T) {
	t.Parallel()
	p, h := webPlace(t, gittest.HTTPOptions{})
	entries, last := chained(4000)
	id := p.repo.Write("main", map[string]string{"a": last})
	from := &store{dir: p.repo.Dir}
	defer from.reload()
	for _, o := range []struct {
		kind byte
		hash string
	}{{packCommit, id}, {packTree, p.repo.TreeOf(map[string]gittest.File{"a": {Data: last}})}} {
		data, _, err := from.readAny(plumbing.NewHash(o.hash), mib)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, packEntry(o.kind, uint64(len(data)), 0, deflated(string(data))))
	}
	p.options.Dir = t.TempDir()
	r := mustOpen(t, p.options)
	h.InterceptPacks(sendPack(func() []byte { return packOf(entries...) }))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := r.Fetch(ctx, mainRef, id); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if got, err := readAll(t, r, id); err != nil || got["a"] != last {
		t.Errorf("it reads %v, %v", got, err)
	}
	if took := time.Since(start); took > slack {
		t.Errorf("reading took %s", took)
	}
}

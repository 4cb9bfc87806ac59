package file

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/internal/effect"
	"github.com/gitopsd/gitopsd/internal/manifest"
	"github.com/gitopsd/gitopsd/internal/plan"
)

// record is what the ledger knows of one path.
type record struct {
	Path        string          `json:"path"`
	ID          manifest.ID     `json:"id"`
	Application string          `json:"application"`
	Epoch       uint64          `json:"epoch"`
	Digest      manifest.Digest `json:"digest,omitempty"` // keyed, of the content that was written
	// Pending stands from before a write until it is known to have succeeded.
	Pending bool `json:"pending,omitempty"`
	// Known says that an earlier write, or adoption, is on record.
	Known bool `json:"known,omitempty"`
	// Was is the kind of what a pending write replaces, when that is of another one:
	// until the write is known to have succeeded, either may be there.
	Was       string `json:"was,omitempty"`
	Sensitive bool   `json:"sensitive,omitempty"`
	OnPrune   string `json:"onPrune,omitempty"`
	OnChange  string `json:"onChange,omitempty"`
	Adopted   bool   `json:"adopted,omitempty"`
	Backup    string `json:"backup,omitempty"` // name in the backup directory
	// Gone ends the record of a path.
	Gone bool `json:"gone,omitempty"`
}

func (r *record) key(target string) plan.Key { return plan.Key{Target: target, ID: r.ID} }

// ours reports whether what is on disk may be taken for our own.
func (r *record) ours() bool { return r != nil && (!r.Pending || r.Known) }

// wrote reports whether something of a kind at the path may be of our own making.
func (r *record) wrote(kind string) bool {
	return r.ours() && kind != "" && (kind == r.ID.Kind || r.Pending && kind == r.Was)
}

// ledger is the record of what was written below one root: a file of lines,
// each with its checksum, to which lines are added; the last line of a path
// counts. It is guarded by its root's mutex.
type ledger struct {
	byPath map[string]*record
	epoch  uint64 // highest ever written
	lines  int
	torn   bool // the file does not end with a whole line
	seen   struct {
		ino, size uint64
		read      bool
	}
	damaged int // lines whose checksum did not hold
}

const ledgerName = "ledger"

// compactAt is how many lines may stand for nothing before the file is written anew.
const compactAt = 1000

// fresh reads the ledger again if somebody else has changed it. A missing one is empty.
func (t *tree) fresh() error {
	t.root.mu.Lock()
	defer t.root.mu.Unlock()
	if err := t.load(); err != nil {
		return withClass(fmt.Errorf("ledger of %s: %w", t.root.path, err))
	}
	return nil
}

// record is what the ledger, as last read, knows of a path; nil when nothing.
func (t *tree) record(p string) *record {
	t.root.mu.Lock()
	defer t.root.mu.Unlock()
	return t.root.led.byPath[p]
}

// records lists what the ledger, as last read, knows, sorted by path.
func (t *tree) records() []*record {
	t.root.mu.Lock()
	defer t.root.mu.Unlock()
	list := make([]*record, 0, len(t.root.led.byPath))
	for _, p := range slices.Sorted(maps.Keys(t.root.led.byPath)) {
		list = append(list, t.root.led.byPath[p])
	}
	return list
}

// epoch is the highest that ever wrote below the root.
func (t *tree) epoch() uint64 {
	t.root.mu.Lock()
	defer t.root.mu.Unlock()
	return t.root.led.epoch
}

func (t *tree) load() error {
	l := &t.root.led
	fd, err := t.root.step(t.fd, stateDir+"/"+ledgerName, unix.O_RDONLY, false)
	if err == unix.ENOENT {
		*l = ledger{byPath: map[string]*record{}}
		return nil
	}
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), ledgerName)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if l.seen.read && l.seen.ino == st.Ino && l.seen.size == uint64(st.Size) {
		return nil
	}
	content, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	*l = ledger{byPath: map[string]*record{}}
	l.parse(content)
	l.seen.ino, l.seen.size, l.seen.read = st.Ino, uint64(len(content)), true
	if l.damaged > 0 {
		t.a.env.Log.Warn("ledger has damaged lines; what they recorded is not known any more", "root", t.root.path, "lines", l.damaged)
	}
	return nil
}

func (l *ledger) parse(content []byte) {
	for len(content) > 0 {
		line, rest, whole := bytes.Cut(content, []byte("\n"))
		content = rest
		rec, ok := parseLine(line)
		switch {
		case !ok && !whole:
			l.torn = true // a write that was cut off; it was never reported as done
		case !ok && len(line) > 0:
			l.damaged++
		case ok:
			l.torn = !whole
			l.set(rec)
		}
	}
}

func (l *ledger) set(rec *record) {
	l.lines++
	l.epoch = max(l.epoch, rec.Epoch)
	if rec.Gone {
		delete(l.byPath, rec.Path)
		return
	}
	l.byPath[rec.Path] = rec
}

func parseLine(line []byte) (*record, bool) {
	sum, body, found := bytes.Cut(line, []byte(" "))
	if !found || string(sum) != checksum(body) {
		return nil, false
	}
	var rec record
	if err := json.Unmarshal(body, &rec); err != nil || rec.Path == "" {
		return nil, false
	}
	return &rec, true
}

func checksum(b []byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
}

func (rec *record) line() []byte {
	body, err := json.Marshal(rec)
	if err != nil { // strings and numbers always marshal
		panic(err)
	}
	return append(append([]byte(checksum(body)+" "), body...), '\n')
}

// write adds records to the ledger, durably and all at once for a reader after a crash.
func (t *tree) write(recs []*record) error {
	if len(recs) == 0 {
		return nil
	}
	r := t.root
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := t.load(); err != nil {
		return withClass(fmt.Errorf("ledger of %s: %w", r.path, err))
	}
	err := t.a.env.Effect(effect.FileLedger, r.path, func() error { return t.append(recs) })
	if err != nil {
		r.led.seen.read = false // what is in the file has to be read again
		return withClass(fmt.Errorf("ledger of %s: %w", r.path, err))
	}
	return nil
}

func (t *tree) append(recs []*record) error {
	l := &t.root.led
	var b bytes.Buffer
	if l.torn {
		b.WriteByte('\n')
	}
	for _, rec := range recs {
		b.Write(rec.line())
	}
	dir, err := t.state(true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	created := !l.seen.read
	fd, err := unix.Openat(dir, ledgerName, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), ledgerName)
	defer f.Close()
	if _, err := f.Write(b.Bytes()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if created {
		if err := unix.Fsync(dir); err != nil {
			return err
		}
	}
	for _, rec := range recs {
		l.set(rec)
	}
	l.torn = false
	if l.lines > 2*len(l.byPath)+compactAt {
		return t.compact()
	}
	return t.remember(fd)
}

// remember notes the file's identity, so that a change by others is seen.
func (t *tree) remember(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	l := &t.root.led
	l.seen.ino, l.seen.size, l.seen.read = st.Ino, uint64(st.Size), true
	return nil
}

// compact writes the records that count into a new file. The highest epoch is
// kept by a record of its own, should its writer be gone.
func (t *tree) compact() error {
	l := &t.root.led
	var b bytes.Buffer
	fence := record{Path: path.Join(t.root.path, stateDir), Epoch: l.epoch, Gone: true}
	b.Write(fence.line())
	for _, p := range slices.Sorted(maps.Keys(l.byPath)) {
		b.Write(l.byPath[p].line())
	}
	if err := t.writeState(ledgerName, b.Bytes()); err != nil {
		return err
	}
	l.lines, l.seen.read = len(l.byPath)+1, false
	return nil
}

package file

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gitopsd/gitopsd/appliers"
	"github.com/gitopsd/gitopsd/internal/effect"
)

// backupDir is where, in a root's state directory, replaced content is kept: a
// file each, of one line of JSON (kept) and then the content.
const backupDir = "backup"

// kept heads a backup.
type kept struct {
	Path   string `json:"path"`
	Type   string `json:"type"` // the kind
	Mode   uint32 `json:"mode"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	Target string `json:"target,omitempty"` // of a symbolic link
	Sum    string `json:"sha256,omitempty"` // of a file's content
}

func (t *tree) backupPath(name string) string {
	return path.Join(t.root.path, stateDir, backupDir, name)
}

// backupName is the same for the same content at the same path, so that a
// backup that is made again after a kill is the same backup. Digests are keyed:
// the name is shown, the content may be a secret.
func (t *tree) backupName(p string, l *look) string {
	return string(t.a.env.Sealer.Digest(fmt.Sprintf("%s\x00%s\x00%o-%d-%d", p, t.a.digest(l), l.perm, l.uid, l.gid)))
}

// keep writes a backup of what is at a path and returns its name.
func (r *run) keep(t *tree, p string, l *look) (string, error) {
	name := t.backupName(p, l)
	head := kept{Path: p, Type: l.kind(), Mode: l.perm, UID: l.uid, GID: l.gid, Target: l.target}
	var content io.Reader = bytes.NewReader(nil)
	if l.typ == unix.S_IFREG {
		head.Sum = hex.EncodeToString(l.sum[:])
		dir, base, err := t.parent(p)
		if err != nil {
			return "", err
		}
		f, err := t.openRegular(dir, base, p)
		if err != nil {
			return "", err
		}
		defer f.Close()
		content = f
	}
	err := r.a.env.Effect(effect.FileBackup, p, func() error { return t.writeBackup(name, head, content) })
	if err != nil {
		return "", explain(err, p)
	}
	return name, nil
}

func (t *tree) writeBackup(name string, head kept, content io.Reader) error {
	dir, err := t.backups(true)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return replaceIn(dir, name, func(f *os.File) error { return fillBackup(f, head, content) })
}

func fillBackup(f *os.File, head kept, content io.Reader) error {
	line, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, sum), content); err != nil {
		return err
	}
	if head.Sum != "" && hex.EncodeToString(sum.Sum(nil)) != head.Sum {
		return errors.New("changed while it was kept; observe again")
	}
	return nil
}

// backups opens the backup directory.
func (t *tree) backups(create bool) (int, error) {
	state, err := t.state(create)
	if err != nil {
		return -1, err
	}
	defer unix.Close(state)
	if create {
		if err := unix.Mkdirat(state, backupDir, 0o700); err != nil && err != unix.EEXIST {
			return -1, err
		}
	}
	fd, err := t.root.step(state, backupDir, unix.O_RDONLY|unix.O_DIRECTORY, false)
	return fd, explain(err, path.Join(t.root.path, stateDir, backupDir))
}

// readBackup returns a backup whose content is what its head says.
func (t *tree) readBackup(name string) (kept, []byte, error) {
	var head kept
	where := t.backupPath(name)
	if name == "" || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
		return head, nil, fmt.Errorf("backup %q is no name of a backup", name)
	}
	dir, err := t.backups(false)
	if err != nil {
		return head, nil, err
	}
	defer unix.Close(dir)
	f, err := t.openRegular(dir, name, where)
	if err != nil {
		return head, nil, err
	}
	defer f.Close()
	all, err := io.ReadAll(f)
	if err != nil {
		return head, nil, explain(err, where)
	}
	line, content, _ := bytes.Cut(all, []byte("\n"))
	if err := json.Unmarshal(line, &head); err != nil {
		return head, nil, fmt.Errorf("backup %s is damaged: %w", where, err)
	}
	if sum := sha256.Sum256(content); head.Sum != "" && hex.EncodeToString(sum[:]) != head.Sum {
		return head, nil, fmt.Errorf("backup %s is damaged: its content has another checksum", where)
	}
	return head, content, nil
}

// hasBackup reports whether a backup has been made.
func (t *tree) hasBackup(name string) bool {
	_, _, err := t.readBackup(name)
	return err == nil
}

// isBackup reports whether a backup has been restored already.
func (t *tree) isBackup(name string, l *look) (bool, error) {
	head, _, err := t.readBackup(name)
	if err != nil {
		return false, missingBackup(err)
	}
	return head.Type == l.kind() && head.Mode == l.perm && head.UID == l.uid && head.GID == l.gid &&
		head.Target == l.target && (head.Sum == "" || head.Sum == hex.EncodeToString(l.sum[:])), nil
}

func missingBackup(err error) error {
	return appliers.WithClass(appliers.Stop, fmt.Errorf("onPrune is restore, but the backup cannot be read, so nothing was removed: %w", err))
}

// restore puts back what adoption replaced. The backup stays: the same delete
// may come again.
func (r *run) restore(ctx context.Context, j *job) error {
	head, content, err := j.tree.readBackup(j.backup)
	if err != nil {
		return missingBackup(err)
	}
	if head.Type != kindFile {
		return appliers.WithClass(appliers.Stop, fmt.Errorf("backup %s is of a %s; restore it by hand", j.tree.backupPath(j.backup), head.Type))
	}
	return r.replace(ctx, j, content, meta{head.Mode, head.UID, head.GID}, "")
}

// Package effect is the one seam through which everything passes that changes
// the world outside the process's memory: a write to a target, to the store, to
// a mirror. Production code runs the effect; tests put a fault before or after
// it. It imports nothing of the project.
package effect

// Name says which kind of effect is about to happen. The names are listed here
// so that a test can hold that every one of them has been crashed at.
type Name string

// The effects of gitopsd.
const (
	StoreCommit  Name = "store.commit"
	FileWrite    Name = "file.write"
	FileChmod    Name = "file.chmod"
	FileRename   Name = "file.rename"
	FileRemove   Name = "file.remove"
	FileMkdir    Name = "file.mkdir"
	FileSymlink  Name = "file.symlink"
	FileSyncDir  Name = "file.syncdir"
	FileBackup   Name = "file.backup"
	FileLedger   Name = "file.ledger"
	CommandRun   Name = "command.run"
	MirrorFetch  Name = "mirror.fetch"
	MirrorKeep   Name = "mirror.keep"
	TargetApply  Name = "target.apply"
	TargetDelete Name = "target.delete"
)

// Names lists every effect, for tests that must cover all of them.
var Names = []Name{
	StoreCommit, FileWrite, FileChmod, FileRename, FileRemove, FileMkdir, FileSymlink, FileSyncDir,
	FileBackup, FileLedger, CommandRun, MirrorFetch, MirrorKeep, TargetApply, TargetDelete,
}

// Seam runs an effect. key names the object or file concerned. The returned
// error is that of do, or one that a test injected before or after it; the
// caller must treat it as it would the error of do. Implementations are safe
// for concurrent use.
type Seam func(name Name, key string, do func() error) error

// Direct runs the effect and nothing else.
func Direct(_ Name, _ string, do func() error) error { return do() }

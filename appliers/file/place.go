package file

// Place implements appliers.Placer: all targets of this kind act on the files of
// one host, this one, and a path is the same file through each of them.
func (a *Applier) Place() string { return "host" }

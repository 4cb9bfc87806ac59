package file

import "errors"

// Place implements appliers.Placer: all targets of this kind act on the files of
// one host, this one, and a path is the same file through each of them.
func (a *Applier) Place() string { return "host" }

// Reaches implements appliers.Reacher by the roots. What is protected inside of
// them is reached, and refused each time.
func (a *Applier) Reaches(locator string) error {
	if _, err := a.allowed(locator); errors.Is(err, ErrOutside) {
		return err
	}
	return nil
}

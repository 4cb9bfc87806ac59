package manifest

import "fmt"

// Set is an index of objects by identity that refuses a second object of the
// same identity, whatever its version. The zero value is empty and ready. It is
// not safe for concurrent use.
type Set struct{ byID map[ID]*Object }

// Add takes an object in, or returns the error that names both places.
func (s *Set) Add(o *Object) error {
	if first, ok := s.byID[o.id]; ok {
		return Duplicate(first, o)
	}
	if s.byID == nil {
		s.byID = map[ID]*Object{}
	}
	s.byID[o.id] = o
	return nil
}

// Get returns the object of an identity.
func (s *Set) Get(id ID) (*Object, bool) {
	o, ok := s.byID[id]
	return o, ok
}

// Len returns the number of objects.
func (s *Set) Len() int { return len(s.byID) }

// Duplicate is the error of an object whose identity is taken: it stands at the
// second object and names the first.
func Duplicate(first, second *Object) *Error {
	e := &Error{
		Path: second.origin.Path,
		Line: second.origin.Line,
		Msg:  fmt.Sprintf("%s is declared a second time, first at %s", second.id, first.origin),
		Hint: "keep one of them",
	}
	if first.apiVersion != second.apiVersion {
		e.Msg += fmt.Sprintf(" (as %s and %s, which are versions of one object)", first.apiVersion, second.apiVersion)
	}
	return e
}

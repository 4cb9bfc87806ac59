package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one problem of a file, with its place and what to do about it. It
// never holds content of the file beyond keys, numbers and names.
type Error struct {
	Path string // inside the source's tree
	Line int    // 1-based; 0 means the file as a whole
	Msg  string // what is wrong
	Hint string // what to do; may be empty
	// Err is the cause for errors.Is, where there is one. It is not printed.
	Err error
}

// Error returns "path:line: what is wrong; what to do".
func (e *Error) Error() string {
	s := Origin{Path: e.Path, Line: e.Line}.String() + ": " + e.Msg
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errors are the problems of one or more files, ordered by path and line. It is
// never empty when it is returned as an error.
type Errors []*Error

// shownErrors is how many problems a message lists: enough to repair a file in
// one go, few enough to read.
const shownErrors = 20

// maxErrors ends the work on a file that has nothing but problems.
const maxErrors = 100

// Error returns the problems, one on a line.
func (e Errors) Error() string {
	lines := make([]string, 0, shownErrors+1)
	for i, err := range e {
		if i == shownErrors {
			lines = append(lines, fmt.Sprintf("and %d more problems", len(e)-i))
			break
		}
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns every problem.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i := range e {
		errs[i] = e[i]
	}
	return errs
}

// Join returns problems as one error in order of path and line, or nil when
// there are none.
func Join(problems []*Error) error {
	if len(problems) == 0 {
		return nil
	}
	sorted := slices.Clone(problems)
	slices.SortStableFunc(sorted, func(a, b *Error) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Line, b.Line))
	})
	return Errors(sorted)
}

// FieldError is what is wrong with one field of an object. Who finds it knows the
// object and not the file, so it has no place yet: FieldLine finds the line.
type FieldError struct {
	At   Pointer // where the field stands, or would; "" is the object as a whole
	Msg  string  // what is wrong, with the name of the field
	Hint string  // what to do; may be empty
	Err  error   // the cause for errors.Is, where there is one; it is not printed
	// missing says that a field which every object has is not there at all: then
	// the document may not have been meant as an object.
	missing bool
}

// Error returns "what is wrong; what to do".
func (e *FieldError) Error() string {
	if e.Hint == "" {
		return e.Msg
	}
	return e.Msg + "; " + e.Hint
}

// Unwrap returns the cause.
func (e *FieldError) Unwrap() error { return e.Err }

// FieldErrors are all that is wrong with one object, in the order in which it was
// found. It is never empty when it is returned as an error.
type FieldErrors []*FieldError

// Error returns all of them in one line.
func (e FieldErrors) Error() string {
	texts := make([]string, len(e))
	for i := range e {
		texts[i] = e[i].Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns each of them.
func (e FieldErrors) Unwrap() []error {
	errs := make([]error, len(e))
	for i := range e {
		errs[i] = e[i]
	}
	return errs
}

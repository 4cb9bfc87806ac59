package appliers

import "errors"

// ErrUndecided is wrapped by an error of Resolve when the target cannot tell at
// present whether the object is valid, as when discovery of its kind failed. A
// revision with such an object is neither accepted nor refused: it waits.
var ErrUndecided = errors.New("the target cannot tell at present")

// Class says what the loop does about an error. It is decided where the error
// arises and used in one place.
type Class uint8

// The classes. An error without a class is Retry.
const (
	Retry Class = iota // passing: try again with backoff
	Wait               // something else has to happen first (a kind, a lock): look again at the interval
	Stop               // wrong until somebody changes it: no retry before the input or the target changes
)

// String returns the word used in reports and metrics.
func (c Class) String() string { return [...]string{"retry", "wait", "stop"}[c] }

type classed struct {
	error
	class Class
}

func (c classed) Unwrap() error { return c.error }

// WithClass returns err with a class; nil stays nil.
func WithClass(class Class, err error) error {
	if err == nil {
		return nil
	}
	return classed{err, class}
}

// ClassOf returns the class of err, outermost first.
func ClassOf(err error) Class {
	var c classed
	if errors.As(err, &c) {
		return c.class
	}
	return Retry
}

package program

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Checks collects what is wrong with the values of flags, so that a user is told
// of all of them at once. Names are those of flags, without dashes.
type Checks struct{ errs []error }

// Err returns all that was found, or nil.
func (c *Checks) Err() error { return errors.Join(c.errs...) }

// Add adds an error that names its flag. Nil is none.
func (c *Checks) Add(err error) {
	if err != nil {
		c.errs = append(c.errs, err)
	}
}

// Check adds the problems of a value, if there are any.
func (c *Checks) Check(name string, value any, problems ...string) {
	if len(problems) == 0 {
		return
	}
	if text, ok := value.(string); ok {
		value = fmt.Sprintf("%q", text)
	}
	c.Add(fmt.Errorf("--%s %v: %s", name, value, strings.Join(problems, "; ")))
}

// Want says what a value should have been, unless it is fine.
func (c *Checks) Want(fine bool, name string, value any, want string) {
	if !fine {
		c.Check(name, value, "want "+want)
	}
}

// Given wants a value that is not empty. The hint, if there is one, says what it
// should be.
func (c *Checks) Given(name, value, hint string) {
	if value != "" {
		return
	}
	if hint != "" {
		hint = ": " + hint
	}
	c.Add(fmt.Errorf("--%s is empty%s", name, hint))
}

// Absolute wants an absolute path.
func (c *Checks) Absolute(name, path string) {
	c.Want(filepath.IsAbs(path), name, path, "an absolute path")
}

// AbsoluteIfGiven wants an absolute path, or none.
func (c *Checks) AbsoluteIfGiven(name, path string) {
	c.Want(path == "" || filepath.IsAbs(path), name, path, "an absolute path, or nothing")
}

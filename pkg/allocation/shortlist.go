package allocation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// listed bounds how many claims or nodes of a gang a text names: an event has room
// for 1 kB, and a gang may have hundreds of claims.
const listed = 3

// failures are what went wrong with the claims of a gang. Unlike those of
// [errors.Join], they have a text of one line that does not grow with the gang.
type failures []error

// join returns the errors that are not nil as one, or nil if there are none.
func join(errs []error) error {
	errs = slices.DeleteFunc(slices.Clone(errs), func(err error) bool { return err == nil })
	if len(errs) == 0 {
		return nil
	}
	return failures(errs)
}

// Error implements error.
func (f failures) Error() string {
	texts := make([]string, len(f))
	for i, err := range f {
		// All of them are the same plan's.
		text := err.Error()
		if i > 0 && errors.Is(err, errLost) {
			text = strings.TrimPrefix(text, errLost.Error()+": ")
		}
		texts[i] = text
	}
	return shortList(texts, "; ")
}

// Unwrap lets [errors.Is] and [errors.As] find all of them.
func (f failures) Unwrap() []error { return f }

// shortList joins the first few of the texts, and says how many more there are.
func shortList(texts []string, between string) string {
	if more := len(texts) - listed; more > 1 { // one more takes no more room than its number
		return fmt.Sprintf("%s%sand %d more", strings.Join(texts[:listed], between), between, more)
	}
	return strings.Join(texts, between)
}

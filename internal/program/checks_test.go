package program

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestChecks(t *testing.T) {
	for name, test := range map[string]struct {
		check func(*Checks)
		want  string
	}{
		"no problems":    {func(c *Checks) { c.Check("name", "a") }, ""},
		"a text":         {func(c *Checks) { c.Check("name", "A b", "no capitals", "no spaces") }, `--name "A b": no capitals; no spaces`},
		"a time":         {func(c *Checks) { c.Want(false, "wait", time.Second, "more than 1s") }, "--wait 1s: want more than 1s"},
		"a number":       {func(c *Checks) { c.Want(false, "workers", 0, "at least 1") }, "--workers 0: want at least 1"},
		"a fine number":  {func(c *Checks) { c.Want(true, "workers", 1, "at least 1") }, ""},
		"nothing":        {func(c *Checks) { c.Given("node-name", "", "set it") }, "--node-name is empty: set it"},
		"nothing at all": {func(c *Checks) { c.Given("namespace", "", "") }, "--namespace is empty"},
		"something":      {func(c *Checks) { c.Given("node-name", "n", "set it") }, ""},
		"paths": {func(c *Checks) {
			c.Absolute("root", "/a")
			c.Absolute("root", "a")
			c.Absolute("root", "")
			c.AbsoluteIfGiven("config", "")
			c.AbsoluteIfGiven("config", "a")
		}, "--root \"a\": want an absolute path\n--root \"\": want an absolute path\n--config \"a\": want an absolute path, or nothing"},
		"errors": {func(c *Checks) { c.Add(nil); c.Add(errors.New("--a without --b")) }, "--a without --b"},
	} {
		t.Run(name, func(t *testing.T) {
			var c Checks
			test.check(&c)
			got := ""
			if err := c.Err(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Package programtest tests the command line of a program of ours.
package programtest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	logsapi "k8s.io/component-base/logs/api/v1"
)

// Refusal is a command line that does not work, and what the error must say.
type Refusal struct {
	Args, Say []string
}

// Refused runs a program with each of the command lines.
func Refused(t *testing.T, program func() *cobra.Command, refusals map[string]Refusal) {
	t.Helper()
	for name, refusal := range refusals {
		t.Run(name, func(t *testing.T) {
			ResetLogging(t)
			command := program()
			command.SetOut(t.Output())
			command.SetErr(t.Output())
			// Not nil, for which cobra takes the arguments of the test.
			command.SetArgs(append([]string{}, refusal.Args...))
			err := command.ExecuteContext(t.Context())
			if err == nil {
				t.Fatal("started")
			}
			for _, want := range refusal.Say {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
		})
	}
}

// TellsVersion asks a program for its version.
func TellsVersion(t *testing.T, program *cobra.Command) {
	t.Helper()
	var out bytes.Buffer
	program.SetOut(&out)
	program.SetArgs([]string{"--version"})
	if err := program.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), program.Name()+" version v") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// ResetLogging lets the next command set up logging, which is possible once in
// the life of a process.
func ResetLogging(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if err := logsapi.ResetForTest(nil); err != nil {
			t.Error(err)
		}
	})
}

package program_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/internal/program/programtest"
)

// tool is a program that needs a name, and has a second command.
func tool(work func(ctx context.Context, name string) error) *cobra.Command {
	command := func(use string) *cobra.Command {
		var name string
		return program.Command(&cobra.Command{Use: use}, program.Work{
			Flags: []func(*pflag.FlagSet){func(flags *pflag.FlagSet) { flags.StringVar(&name, "name", "", "a name") }},
			Validate: func() error {
				var c program.Checks
				c.Given("name", name, "")
				return c.Err()
			},
			Run: func(ctx context.Context) error { return work(ctx, name) },
		})
	}
	return program.Root(command("tool"), command("remove"))
}

func TestRefused(t *testing.T) {
	programtest.Refused(t, func() *cobra.Command {
		return tool(func(_ context.Context, name string) error { return errors.New("work for " + name) })
	}, map[string]programtest.Refusal{
		"a value":           {Say: []string{"--name is empty"}},
		"a command's value": {Args: []string{"remove"}, Say: []string{"--name is empty"}},
		"an argument":       {Args: []string{"--name=n", "start"}, Say: []string{"start"}},
		"an unknown flag":   {Args: []string{"--naem=n"}, Say: []string{"--naem"}},
		"the log's format":  {Args: []string{"--name=n", "--logging-format=yaml"}, Say: []string{"set up logging", "yaml"}},
		"the work":          {Args: []string{"--name=n", "--logging-format=json", "-v=4"}, Say: []string{"work for n"}},
		"a command's work":  {Args: []string{"remove", "--name=m"}, Say: []string{"work for m"}},
	})
}

func TestEndsByASignal(t *testing.T) {
	programtest.ResetLogging(t)
	command := tool(func(ctx context.Context, _ string) error {
		self, err := os.FindProcess(os.Getpid())
		if err != nil {
			return err
		}
		if err := self.Signal(os.Interrupt); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	})
	command.SetArgs([]string{"--name=n"})
	if err := command.ExecuteContext(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestVersion(t *testing.T) {
	programtest.TellsVersion(t, tool(nil))
}

package main

import (
	"bytes"
	"strings"
	"testing"
)

// Every flag with a wrong value is named, all of them at once.
func TestWrongFlags(t *testing.T) {
	for name, test := range map[string]struct {
		args []string
		say  []string
	}{
		"several":      {[]string{"--driver-name=Not_A_Domain", "--unused-after=0s", "--workers=0", "--topology-label=a b"}, []string{`--driver-name "Not_A_Domain"`, "--unused-after", "--workers 0", `--topology-label "a b"`}},
		"unknown flag": {[]string{"--drivername=x"}, []string{"--drivername"}},
		"argument":     {[]string{"start"}, []string{"start"}},
		"lease":        {[]string{"--leader-elect-renew-deadline=20s"}, []string{"--leader-elect-renew-deadline 20s", "--leader-elect-lease-duration 15s"}},
		"webhook":      {[]string{"--webhook-port=0", "--webhook-secret=A"}, []string{"--webhook-port 0", `--webhook-secret "A"`}},
		"no cluster":   {[]string{"--kubeconfig=/nowhere/kubeconfig"}, []string{`--kubeconfig "/nowhere/kubeconfig"`}},
	} {
		t.Run(name, func(t *testing.T) {
			command := newCommand()
			var out bytes.Buffer
			command.SetOut(&out)
			command.SetErr(&out)
			command.SetArgs(test.args)
			err := command.ExecuteContext(t.Context())
			if err == nil {
				t.Fatal("started")
			}
			for _, want := range test.say {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, err)
				}
			}
		})
	}
}

func TestVersion(t *testing.T) {
	command := newCommand()
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetArgs([]string{"--version"})
	if err := command.ExecuteContext(t.Context()); err != nil || !strings.HasPrefix(out.String(), "controller version v") {
		t.Errorf("%q, %v", out.String(), err)
	}
}

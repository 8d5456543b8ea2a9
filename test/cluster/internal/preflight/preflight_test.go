package preflight

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEachMissingCapabilityIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		have []int
		want []string
	}{
		"both":           {have: []int{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN}},
		"none":           {want: []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "--privileged"}},
		"not of network": {have: []int{unix.CAP_SYS_ADMIN}, want: []string{"CAP_NET_ADMIN"}},
	} {
		t.Run(name, func(t *testing.T) {
			err := capabilities(func(number int) (bool, error) {
				for _, have := range test.have {
					if have == number {
						return true, nil
					}
				}
				return false, nil
			})
			if (err == nil) != (len(test.want) == 0) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
	unreadable := errors.New("no /proc")
	if err := capabilities(func(int) (bool, error) { return false, unreadable }); !errors.Is(err, unreadable) {
		t.Errorf("error %v, want %v", err, unreadable)
	}
}

func TestAMissingGoCommandIsNamedWithTheWayToIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := Go(); err == nil || !strings.Contains(err.Error(), "install Go") {
		t.Errorf("error %v does not say how to get Go", err)
	}
}

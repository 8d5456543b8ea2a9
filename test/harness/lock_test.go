package harness

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestTheSecondToLockAClusterIsToldWhoHasIt(t *testing.T) {
	folder := t.TempDir()
	unlock, err := lock(folder, "demo")
	if err != nil {
		t.Fatal(err)
	}
	other, err := lock(folder, "e2e")
	if err != nil {
		t.Errorf("another cluster cannot be locked: %v", err)
	} else if err := other(); err != nil {
		t.Error(err)
	}
	_, err = lock(folder, "demo")
	for _, want := range []string{"the cluster demo is in use", fmt.Sprint("process ", os.Getpid())} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := lock(folder, "demo")
	if err != nil {
		t.Fatalf("after unlocking: %v", err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
}

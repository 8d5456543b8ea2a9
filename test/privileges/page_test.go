package privileges

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestThePageNamesEachRight compares the tables of docs/permissions.md with what the
// chart grants where everything is switched on.
func TestThePageNamesEachRight(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(world.Root, "docs", "permissions.md"))
	if err != nil {
		t.Fatal(err)
	}
	var told, have []string
	account := ""
	for line := range strings.Lines(string(text)) {
		if title, found := strings.CutPrefix(line, "### "); found {
			account = strings.Trim(strings.TrimSpace(title), "`")
		}
		cells := strings.Split(line, "|")
		if account == "" || len(cells) < 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		for verb := range strings.SplitSeq(cells[2], ",") {
			for resource := range strings.SplitSeq(cells[1], ",") {
				told = append(told, fmt.Sprintf("%s: %s %s", account, strings.TrimSpace(verb), strings.Trim(strings.TrimSpace(resource), "`")))
			}
		}
	}
	for _, r := range world.rights {
		have = append(have, r.String())
	}
	slices.Sort(told)
	slices.Sort(have)
	if diff := cmp.Diff(have, told); diff != "" {
		t.Errorf("docs/permissions.md (-in the chart +on the page):\n%s", diff)
	}
}

// TestTheTestsOfThePageAreThere looks for the tests that the page names.
func TestTheTestsOfThePageAreThere(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(world.Root, "docs", "permissions.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Za-z]+)`").FindAllStringSubmatch(string(text), -1)
	for _, test := range elsewhere() {
		if !strings.Contains(string(text), "`"+test+"`") {
			t.Errorf("docs/permissions.md does not name %s", test)
		}
	}
	files, err := filepath.Glob(filepath.Join(world.Root, "test", "*", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob(filepath.Join(world.Root, "test", "*", "*", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	all := ""
	for _, file := range append(files, deeper...) {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all += string(content)
	}
	for _, name := range named {
		if !strings.Contains(all, "\nfunc "+name[1]+"(t ") {
			t.Errorf("there is no test %s, which docs/permissions.md names", name[1])
		}
	}
}

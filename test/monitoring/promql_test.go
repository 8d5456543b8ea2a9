package monitoring

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// selector is a metric that an expression asks for, and the labels by which it
// chooses series.
type selector struct {
	Metric string
	Labels []string
}

// ask is what an expression asks for. Labels are those by which it groups and
// joins.
type ask struct {
	Selectors []selector
	Labels    []string
}

// read finds out what a PromQL expression asks for. That it is one, promtool
// sees to.
func read(expression string) ask {
	tokens := regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[a-zA-Z_:][a-zA-Z0-9_:]*|[0-9.]+[a-z]*|\$[a-z_]+|[^\s]`).FindAllString(expression, -1)
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	isName := func(s string) bool { return regexp.MustCompile(`^[a-zA-Z_:]`).MatchString(s) }
	lists := []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	words := []string{"and", "or", "unless", "bool", "offset"}
	var a ask
	for i := 0; i < len(tokens); i++ {
		switch token := tokens[i]; {
		case slices.Contains(lists, token):
			for i++; at(i) != "" && at(i) != ")"; i++ {
				if isName(at(i)) {
					a.Labels = append(a.Labels, at(i))
				}
			}
		case !isName(token), slices.Contains(words, token), at(i+1) == "(", isAggregator(token):
		default:
			s := selector{Metric: token}
			if at(i+1) == "{" {
				for i++; at(i) != "" && at(i) != "}"; i++ {
					if isName(at(i)) && strings.ContainsAny(at(i+1), "=!") {
						s.Labels = append(s.Labels, at(i))
					}
				}
			}
			a.Selectors = append(a.Selectors, s)
		}
	}
	return a
}

func isAggregator(name string) bool {
	return slices.Contains([]string{"sum", "min", "max", "avg", "count", "group"}, name)
}

func TestRead(t *testing.T) {
	for expression, want := range map[string]ask{
		`up`: {Selectors: []selector{{Metric: "up"}}},
		`sum by (a, b) (rate(x_total{c="up", d!~"e|f"}[5m])) > 0`: {
			Selectors: []selector{{"x_total", []string{"c", "d"}}}, Labels: []string{"a", "b"}},
		`x unless on (node) group by (node) (y{job=~"$job"} == 1) offset 1h`: {
			Selectors: []selector{{Metric: "x"}, {"y", []string{"job"}}}, Labels: []string{"node", "node"}},
		`x - time() < 30 * 24 * 3600 or 0 * max(y)`: {Selectors: []selector{{Metric: "x"}, {Metric: "y"}}},
	} {
		if diff := cmp.Diff(want, read(expression)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", expression, diff)
		}
	}
}

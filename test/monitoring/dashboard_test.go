package monitoring

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		H, W, X, Y int
	} `json:"gridPos"`
	Targets []struct {
		RefID string `json:"refId"`
		Expr  string `json:"expr"`
	} `json:"targets"`
}

type dashboard struct {
	UID        string  `json:"uid"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name  string `json:"name"`
			Query any    `json:"query"`
		} `json:"list"`
	} `json:"templating"`
}

func loadDashboard(t *testing.T) dashboard {
	t.Helper()
	var d dashboard
	load(t, chart+"/files/dashboard.json", &d)
	if d.UID == "" || len(d.Panels) < 10 {
		t.Fatalf("the dashboard has the uid %q and %d panels", d.UID, len(d.Panels))
	}
	return d
}

// plain is an expression without what Grafana fills in.
func plain(expression string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$node", ".*").Replace(expression)
}

func TestPanelsAreDistinctAndSideBySide(t *testing.T) {
	ids, titles, taken := map[int]string{}, map[string]bool{}, map[[2]int]string{}
	for _, p := range loadDashboard(t).Panels {
		if other, ok := ids[p.ID]; ok {
			t.Errorf("panels %q and %q have the same id %d", p.Title, other, p.ID)
		}
		if titles[p.Title] {
			t.Errorf("two panels have the title %q", p.Title)
		}
		ids[p.ID], titles[p.Title] = p.Title, true
		if p.GridPos.W < 1 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q is outside the 24 columns of a dashboard", p.Title)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Fatalf("panel %q lies over %q", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
	}
}

func TestPanelsAskForMetricsThatThereAre(t *testing.T) {
	metrics := known(t)
	d := loadDashboard(t)
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			metrics.check(t, fmt.Sprintf("panel %q %s", p.Title, target.RefID), plain(target.Expr))
		}
	}
	for _, v := range d.Templating.List {
		query, ok := v.Query.(map[string]any)
		if !ok {
			continue
		}
		metric, label, _ := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprint(query["query"]), "label_values("), ")"), ", ")
		metrics.check(t, "variable "+v.Name, "max by ("+label+") ("+metric+")")
	}
}

// TestPromtoolTakesThePanels has the expressions looked at as if they were rules.
func TestPromtoolTakesThePanels(t *testing.T) {
	var rules group
	rules.Name = "panels"
	for _, p := range loadDashboard(t).Panels {
		for _, target := range p.Targets {
			rules.Rules = append(rules.Rules, rule{Record: fmt.Sprintf("panel_%d_%s", p.ID, target.RefID), Expr: plain(target.Expr)})
		}
	}
	content, err := yaml.Marshal(ruleFile{Groups: []group{rules}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "panels.yaml")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}

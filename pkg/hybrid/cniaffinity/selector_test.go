package cniaffinity

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

// sel reads a selector: terms separated by "|", requirements by "&". "-" is no
// selector, "" one without terms, "{}" an empty term. "@name" is a field.
func sel(text string) *corev1.NodeSelector {
	if text == "-" {
		return nil
	}
	s := &corev1.NodeSelector{}
	if text == "" {
		return s
	}
	for term := range strings.SplitSeq(text, "|") {
		t := corev1.NodeSelectorTerm{}
		for req := range strings.SplitSeq(strings.Trim(strings.TrimSpace(term), "{}"), "&") {
			if req = strings.TrimSpace(req); req == "" {
				continue
			}
			if name, ok := strings.CutPrefix(req, "@"); ok {
				t.MatchFields = append(t.MatchFields, corev1.NodeSelectorRequirement{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name}})
				continue
			}
			words := strings.Fields(req)
			r := corev1.NodeSelectorRequirement{Key: words[0], Operator: corev1.NodeSelectorOperator(words[1])}
			if len(words) > 2 {
				r.Values = strings.Split(words[2], ",")
			}
			if r.Key == "type" {
				r.Key = v1alpha1.LabelComputeType
			}
			t.MatchExpressions = append(t.MatchExpressions, r)
		}
		s.NodeSelectorTerms = append(s.NodeSelectorTerms, t)
	}
	return s
}

func TestMerge(t *testing.T) {
	for name, test := range map[string]struct{ from, hybrid, cloud string }{
		"none":                  {"-", "type In hybrid", "type NotIn hybrid"},
		"no terms match nobody": {"", "", ""},
		"empty term":            {"{}", "{}", "{}"},
		"one term":              {"os In linux", "os In linux & type In hybrid", "os In linux & type NotIn hybrid"},
		"two terms":             {"os In linux | gpu Exists", "os In linux & type In hybrid | gpu Exists & type In hybrid", "os In linux & type NotIn hybrid | gpu Exists & type NotIn hybrid"},
		"a field":               {"@a", "@a & type In hybrid", "@a & type NotIn hybrid"},
		"empty term beside":     {"{} | os In linux", "{} | os In linux & type In hybrid", "{} | os In linux & type NotIn hybrid"},
		"as EKS has aws-node": {
			"os In linux & arch In amd64,arm64 & type NotIn fargate,hybrid,auto",
			"os In linux & arch In amd64,arm64 & type NotIn fargate,hybrid,auto & type In hybrid",
			"os In linux & arch In amd64,arm64 & type NotIn fargate,hybrid,auto",
		},
		"there already":   {"type In hybrid", "type In hybrid", "type In hybrid & type NotIn hybrid"},
		"another value":   {"type In auto", "type In auto & type In hybrid", "type In auto"},
		"both values":     {"type In hybrid,auto", "type In hybrid,auto & type In hybrid", "type In hybrid,auto & type NotIn hybrid"},
		"no label at all": {"type DoesNotExist", "type DoesNotExist & type In hybrid", "type DoesNotExist"},
		"any label":       {"type Exists", "type Exists & type In hybrid", "type Exists & type NotIn hybrid"},
	} {
		t.Run(name, func(t *testing.T) {
			for side, want := range map[v1alpha1.NodeSide]string{v1alpha1.HybridNodes: test.hybrid, v1alpha1.CloudNodes: test.cloud} {
				if diff := cmp.Diff(sel(want), merge(sel(test.from), side)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", side, diff)
				}
			}
		})
	}
}

// Somebody has changed the affinity after us.
func TestUnmergeOfWhatWasChanged(t *testing.T) {
	const ours = " & type In hybrid"
	for name, test := range map[string]struct{ original, current, want string }{
		"unchanged":                          {"os In linux", "os In linux" + ours, "os In linux"},
		"unchanged, none before":             {"-", "type In hybrid", "-"},
		"ours is gone":                       {"os In linux", "os In linux", "os In linux"},
		"all is gone":                        {"os In linux", "-", "-"},
		"a term more":                        {"os In linux", "os In linux" + ours + "| gpu Exists", "os In linux | gpu Exists"},
		"a term more, with ours":             {"os In linux", "os In linux" + ours + "| gpu Exists" + ours, "os In linux | gpu Exists"},
		"a requirement more":                 {"os In linux", "os In linux & arch In amd64" + ours, "os In linux & arch In amd64"},
		"a requirement behind ours":          {"os In linux", "os In linux" + ours + "& arch In amd64", "os In linux & arch In amd64"},
		"an alternative to ours alone":       {"-", "type In hybrid | gpu Exists", "-"},
		"one term had the same before":       {"type In hybrid | os In linux", "type In hybrid | os In linux" + ours + "| gpu Exists", "type In hybrid | os In linux | gpu Exists"},
		"another value of the label, theirs": {"os In linux", "os In linux & type NotIn fargate" + ours, "os In linux & type NotIn fargate"},
		"field":                              {"@a", "@b" + ours, "@b"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &saved{Nodes: v1alpha1.HybridNodes, Original: sel(test.original), Applied: merge(sel(test.original), v1alpha1.HybridNodes)}
			if diff := cmp.Diff(sel(test.want), unmerge(sel(test.current), r)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// sampleNodes have every value of the label, with and without what else terms ask
// for.
func sampleNodes() []*corev1.Node {
	var nodes []*corev1.Node
	for _, kind := range []string{"", "hybrid", "auto", "fargate"} {
		for _, os := range []string{"linux", "windows"} {
			labels := map[string]string{"os": os}
			if kind != "" {
				labels[v1alpha1.LabelComputeType] = kind
			}
			nodes = append(nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s%s", os, kind), Labels: labels}})
		}
	}
	return nodes
}

func hybrid(n *corev1.Node) bool { return n.Labels[v1alpha1.LabelComputeType] == "hybrid" }

// FuzzMerge makes selectors of bytes, and asks the scheduler's own code what they
// mean: merged, they match the nodes that matched before and are on the side; merging
// again changes nothing; taking it back gives what was there; and what is taken out
// of a selector that was changed meanwhile costs no node its pod.
func FuzzMerge(f *testing.F) {
	for _, seed := range []string{"", "\x00", "\x01\x02", "\x01\xff\x02", "\x03\xff\x04\x05", "\x06\xff\x06", "\x07\x01\xff\xff\x02", "\x09\x01"} {
		f.Add([]byte(seed), []byte("\x01"))
	}
	parts := []string{"os In linux", "os NotIn linux", "type In hybrid", "type NotIn hybrid", "type In hybrid,auto", "type NotIn fargate,hybrid", "type DoesNotExist", "type Exists", "@linuxhybrid", "@linux"}
	build := func(raw []byte) *corev1.NodeSelector {
		if len(raw) == 0 {
			return nil
		}
		var terms []string
		term := []string{}
		for _, b := range raw[:min(len(raw), 24)] {
			if b == 0xff {
				terms, term = append(terms, "{"+strings.Join(term, "&")+"}"), nil
				continue
			}
			term = append(term, parts[int(b)%len(parts)])
		}
		return sel(strings.Join(append(terms, "{"+strings.Join(term, "&")+"}"), "|"))
	}
	f.Fuzz(func(t *testing.T, raw, changed []byte) {
		from := build(raw)
		for _, side := range []v1alpha1.NodeSide{v1alpha1.HybridNodes, v1alpha1.CloudNodes} {
			merged := merge(from, side)
			if !kept(merged, side) {
				t.Fatalf("%s: %v does not keep pods there", side, merged)
			}
			r := &saved{Nodes: side, Original: from, Applied: merged}
			if diff := cmp.Diff(merged, merge(merged, side)); diff != "" {
				t.Fatalf("%s: merging again changes it:\n%s", side, diff)
			}
			if diff := cmp.Diff(from, unmerge(merged, r)); diff != "" {
				t.Fatalf("%s: it is not as before:\n%s", side, diff)
			}
			other := merged.DeepCopy()
			if more := build(changed); more != nil {
				other.NodeSelectorTerms = append(other.NodeSelectorTerms, more.NodeSelectorTerms...)
			}
			without := unmerge(other, r)
			for _, node := range sampleNodes() {
				one := []*corev1.Node{node}
				had, has := matching(one, nil, from) == 1, matching(one, nil, merged) == 1
				if has != (had && hybrid(node) == (side == v1alpha1.HybridNodes)) {
					t.Fatalf("%s: node %s matches %t, and %t before; from %v, merged %v", side, node.Name, has, had, from, merged)
				}
				if matching(one, nil, other) == 1 && matching(one, nil, without) == 0 {
					t.Fatalf("%s: node %s loses its pod: with ours %v, without %v", side, node.Name, other, without)
				}
			}
		}
	})
}

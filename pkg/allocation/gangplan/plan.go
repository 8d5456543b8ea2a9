package gangplan

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Label marks the ConfigMaps that hold plans. The value is "true".
const Label = "eks-hybrid-dra/gang-plan"

// version of what is in the ConfigMap. A plan of another version is not
// understood; fields that a later release adds do not change it, and are
// ignored.
const version = 1

// dataKey is where a ConfigMap has the plan: compressed, since a gang may have
// hundreds of devices and a ConfigMap at most 1 MiB.
const dataKey = "plan.json.gz"

// tooLarge bounds a plan that is read.
const tooLarge = 64 << 20

// Plan is what each member of a gang is given.
type Plan struct {
	// Gang is the namespace of the claims and the value of their label.
	Gang    types.NamespacedName `json:"gang"`
	Members []Member             `json:"members"`
}

// Member is one claim of a gang and what it is given.
type Member struct {
	Name       string                       `json:"name"`
	UID        types.UID                    `json:"uid"`
	Node       string                       `json:"node"`
	Why        string                       `json:"why,omitempty"`
	Allocation resourceapi.AllocationResult `json:"allocation"`
}

type file struct {
	Version int `json:"version"`
	Plan
}

// name is that of the gang's ConfigMap: a gang's own name may be too long with
// its namespace in front.
func name(gang types.NamespacedName) string {
	sum := sha256.Sum256([]byte(gang.String()))
	return "eks-hybrid-dra-gang-" + hex.EncodeToString(sum[:10])
}

func encode(namespace string, plan Plan) (*corev1.ConfigMap, error) {
	var data bytes.Buffer
	compressed := gzip.NewWriter(&data)
	if err := json.NewEncoder(compressed).Encode(file{Version: version, Plan: plan}); err != nil {
		return nil, fmt.Errorf("write the plan of gang %s: %w", plan.Gang, err)
	}
	if err := compressed.Close(); err != nil {
		return nil, fmt.Errorf("compress the plan of gang %s: %w", plan.Gang, err)
	}
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      name(plan.Gang),
			Labels:    map[string]string{Label: "true", "app.kubernetes.io/part-of": "eks-hybrid-dra"},
			Annotations: map[string]string{
				"eks-hybrid-dra/description": fmt.Sprintf("What the controller is giving to the %d claims of gang %s; it is removed when all have it", len(plan.Members), plan.Gang),
			},
		},
		BinaryData: map[string][]byte{dataKey: data.Bytes()},
	}, nil
}

func decode(object *corev1.ConfigMap) (Plan, error) {
	compressed, err := gzip.NewReader(bytes.NewReader(object.BinaryData[dataKey]))
	if err != nil {
		return Plan{}, fmt.Errorf("field binaryData[%s]: %w", dataKey, err)
	}
	var f file
	if err := json.NewDecoder(io.LimitReader(compressed, tooLarge)).Decode(&f); err != nil {
		return Plan{}, fmt.Errorf("field binaryData[%s]: %w", dataKey, err)
	}
	if f.Version != version {
		return Plan{}, fmt.Errorf("field binaryData[%s]: version %d, this controller knows version %d", dataKey, f.Version, version)
	}
	if name(f.Gang) != object.Name {
		return Plan{}, fmt.Errorf("field binaryData[%s]: it is of gang %s, whose plan is in ConfigMap %s", dataKey, f.Gang, name(f.Gang))
	}
	if err := f.check(); err != nil {
		return Plan{}, fmt.Errorf("field binaryData[%s]: %w", dataKey, err)
	}
	return f.Plan, nil
}

// check tells what a plan lacks without which it cannot be carried out.
func (p *Plan) check() error {
	if p.Gang.Namespace == "" || p.Gang.Name == "" || len(p.Members) == 0 {
		return fmt.Errorf("gang %q of %d claims: want a namespace, a name and at least one claim", p.Gang, len(p.Members))
	}
	for i, m := range p.Members {
		if m.Name == "" || m.UID == "" || m.Node == "" || len(m.Allocation.Devices.Results) == 0 {
			return fmt.Errorf("members[%d]: claim %q with UID %q on node %q has %d devices: want all of them", i, m.Name, m.UID, m.Node, len(m.Allocation.Devices.Results))
		}
	}
	return nil
}

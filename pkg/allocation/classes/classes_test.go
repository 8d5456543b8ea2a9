package classes

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

func class(expressions ...string) *resourceapi.DeviceClass {
	c := &resourceapi.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "1", Generation: 1}}
	for _, e := range expressions {
		c.Spec.Selectors = append(c.Spec.Selectors, resourceapi.DeviceSelector{CEL: &resourceapi.CELDeviceSelector{Expression: e}})
	}
	return c
}

func TestRead(t *testing.T) {
	const driver, typ = "device.driver == 'eks-hybrid-dra'", "device.attributes['eks-hybrid-dra'].type"
	for name, test := range map[string]struct {
		class *resourceapi.DeviceClass
		want  Class
	}{
		"GPUs":             {class(driver + " && " + typ + " == 'gpu'"), Class{Ours: true, Kind: "gpu"}},
		"two selectors":    {class(driver, typ+" == 'vf'"), Class{Ours: true, Kind: "vf"}},
		"pairs, quoted":    {class(`device.driver == "eks-hybrid-dra" && ` + typ + " == 'gpu-vf'"), Class{Ours: true, Kind: "gpu-vf"}},
		"managed devices":  {class(driver + " && " + typ + " == 'gpu' && device.attributes['eks-hybrid-dra'].?allocator.orValue('') == 'controller'"), Class{Ours: true, Kind: "gpu"}},
		"any of ours":      {class(driver), Class{Ours: true, Kind: KindMixed}},
		"two kinds":        {class(driver + " && " + typ + " in ['gpu', 'gpu-vf']"), Class{Ours: true, Kind: KindMixed}},
		"other attributes": {class(driver + " && device.attributes['eks-hybrid-dra'].productName.startsWith('NVIDIA H100')"), Class{Ours: true, Kind: KindMixed}},
		"by prefix":        {class("device.driver.startsWith('eks-') && " + typ + " == 'gpu'"), Class{Ours: true, Kind: "gpu"}},
		"another driver":   {class("device.driver == 'gpu.nvidia.com'"), Class{}},
		"all but ours":     {class("device.driver != 'eks-hybrid-dra'"), Class{}},
		"everything":       {class(), Class{}},
		"no CEL":           {class("device.driver =="), Class{}},
		"no class":         {nil, Class{}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, NewReader("eks-hybrid-dra").Read(test.class)); diff != "" {
				t.Errorf("unexpected meaning (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadAgainAfterChange(t *testing.T) {
	r := NewReader("d")
	c := class("device.driver == 'd'")
	if got := r.Read(c); got.Managed {
		t.Errorf("managed without the label: %+v", got)
	}
	c = c.DeepCopy()
	c.Labels = map[string]string{v1alpha1.LabelManagedClass: "true"}
	if got := r.Read(c); !got.Managed {
		t.Errorf("not managed in spite of the label: %+v", got)
	}
	c = c.DeepCopy()
	c.UID, c.Spec.Selectors[0].CEL.Expression = types.UID("2"), "device.driver == 'other'"
	if got := r.Read(c); got.Ours {
		t.Errorf("the class of the same name that was made anew is still taken for the old one: %+v", got)
	}
	r.Forget("c")
	if len(r.read) != 0 {
		t.Errorf("a class that is gone is kept: %v", r.read)
	}
}

func TestOf(t *testing.T) {
	spec := &resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{Requests: []resourceapi.DeviceRequest{
		{Name: "a", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "x"}},
		{Name: "b", FirstAvailable: []resourceapi.DeviceSubRequest{{Name: "c", DeviceClassName: "y"}, {Name: "d", DeviceClassName: "z"}}},
		{Name: "unknown to this version"},
	}}}
	want := []Asked{{"a", "x"}, {"b/c", "y"}, {"b/d", "z"}}
	if diff := cmp.Diff(want, Of(spec)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

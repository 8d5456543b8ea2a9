package apiclient

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestServes(t *testing.T) {
	rules := resourceapi.SchemeGroupVersion.WithResource("devicetaintrules")
	lists := func(resources ...string) *metav1.APIResourceList {
		list := &metav1.APIResourceList{GroupVersion: "resource.k8s.io/v1"}
		for _, name := range resources {
			list.APIResources = append(list.APIResources, metav1.APIResource{Name: name})
		}
		return list
	}
	for name, test := range map[string]struct {
		groups []*metav1.APIResourceList
		fails  error
		want   bool
	}{
		"serves it":           {groups: []*metav1.APIResourceList{lists("resourceclaims", "devicetaintrules")}, want: true},
		"serves others":       {groups: []*metav1.APIResourceList{lists("resourceclaims")}},
		"without the version": {},
		"does not answer":     {fails: errors.New("connection refused")},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			client.Resources = test.groups
			client.PrependReactor("get", "resource", func(clienttesting.Action) (bool, runtime.Object, error) {
				return test.fails != nil, nil, test.fails
			})
			got, err := Serves(t.Context(), client, rules)
			if got != test.want || !errors.Is(err, test.fails) {
				t.Errorf("got %t, %v; want %t, %v", got, err, test.want, test.fails)
			}
			if want := "whether it serves devicetaintrules of resource.k8s.io/v1"; err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not say %q", err, want)
			}
		})
	}
}

func TestWatchEnded(t *testing.T) {
	for err, want := range map[error]bool{
		apierrors.NewResourceExpired("too old"):                                     true,
		fmt.Errorf("watch: %w", io.EOF):                                             true,
		apierrors.NewForbidden(resourceapi.Resource("rules"), "", io.ErrShortWrite): false,
	} {
		if got := WatchEnded(err); got != want {
			t.Errorf("%v: got %t, want %t", err, got, want)
		}
	}
}

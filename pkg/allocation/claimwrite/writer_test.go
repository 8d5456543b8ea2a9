package claimwrite

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
)

func claim() *resourceapi.ResourceClaim {
	return &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "gpu", UID: "uid"}}
}

func allocation() *resourceapi.AllocationResult {
	return &resourceapi.AllocationResult{Devices: resourceapi.DeviceAllocationResult{Results: []resourceapi.DeviceRequestAllocationResult{{Request: "gpu", Driver: "d", Pool: "p", Device: "gpu-0"}}}}
}

// A write that hangs has failed before the other allocator may give the device.
func TestAWriteEndsBeforeADeviceHasChangedHands(t *testing.T) {
	if allocateTimeout >= v1alpha1.MinSettle {
		t.Errorf("a write may take %s, a device changes hands in %s", allocateTimeout, v1alpha1.MinSettle)
	}
}

func TestWhatIsWritten(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	freed := claim()
	freed.Annotations = map[string]string{AnnotationFreedUnused: "before", AnnotationUsed: "before", "mine": "stays"}
	freed.Finalizers = []string{resourceapi.Finalizer}
	for name, before := range map[string]*resourceapi.ResourceClaim{"new": claim(), "freed before": freed} {
		t.Run(name, func(t *testing.T) {
			w := New(fake.NewClientset(before), clocktesting.NewFakePassiveClock(now))
			pods := []resourceapi.ResourceClaimConsumerReference{{Resource: "pods", Name: "p", UID: "p"}}
			got, err := w.Allocate(t.Context(), before, allocation(), pods)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]string{resourceapi.Finalizer}, got.Finalizers); diff != "" {
				t.Errorf("finalizers (-want +got):\n%s", diff)
			}
			if stamp := got.Status.Allocation.AllocationTimestamp; stamp == nil || !stamp.Time.Equal(now) {
				t.Errorf("allocated at %v, want %v", stamp, now)
			}
			if diff := cmp.Diff(pods, got.Status.ReservedFor); diff != "" {
				t.Errorf("reserved for (-want +got):\n%s", diff)
			}
			if WaitsForPod(got) || before.Annotations["mine"] != got.Annotations["mine"] {
				t.Errorf("annotations %v", got.Annotations)
			}
			if _, err := w.Free(t.Context(), got, AnnotationFreedUnused); err == nil || !strings.Contains(err.Error(), "reserved for pods p") {
				t.Errorf("a claim in use was freed: %v", err)
			}
			got.Status.ReservedFor = nil
			free, err := w.Free(t.Context(), got, AnnotationFreedUnused)
			if err != nil {
				t.Fatal(err)
			}
			if free.Status.Allocation != nil || free.Annotations[AnnotationFreedUnused] != "2026-11-21T09:00:00Z" || !WaitsForPod(free) {
				t.Errorf("freed: allocation %v, annotations %v", free.Status.Allocation, free.Annotations)
			}
		})
	}
}

// Only what the API server refused did not happen for sure.
func TestErrorsSayWhetherTheClaimMayHaveBeenWritten(t *testing.T) {
	resource := resourceapi.Resource("resourceclaims")
	tests := map[string]struct {
		err     error
		unknown bool
	}{
		"conflict":       {err: apierrors.NewConflict(resource, "gpu", errors.New("changed"))},
		"forbidden":      {err: apierrors.NewForbidden(resource, "gpu", errors.New("no"))},
		"too many":       {err: apierrors.NewTooManyRequests("later", 1)},
		"server timeout": {err: apierrors.NewServerTimeout(resource, "update", 1), unknown: true},
		"timeout":        {err: &apierrors.StatusError{ErrStatus: metav1.Status{Code: http.StatusRequestTimeout}}, unknown: true},
		"internal":       {err: apierrors.NewInternalError(errors.New("etcd")), unknown: true},
		"no answer":      {err: context.DeadlineExceeded, unknown: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset(claim())
			client.PrependReactor("update", "resourceclaims", func(a k8stesting.Action) (bool, runtime.Object, error) {
				return a.GetSubresource() == "status", nil, test.err
			})
			_, err := New(client, clocktesting.NewFakePassiveClock(time.Now())).Allocate(t.Context(), claim(), allocation(), nil)
			if !errors.Is(err, test.err) || errors.Is(err, ErrUnknown) != test.unknown || !strings.Contains(err.Error(), "team/gpu") {
				t.Errorf("%v: unknown %t, want %t", err, errors.Is(err, ErrUnknown), test.unknown)
			}
		})
	}
}

func TestAfterALostAnswerNothingOlderCanBeWritten(t *testing.T) {
	there, allocated := claim(), claim()
	allocated.Status.Allocation = allocation()
	other := claim()
	other.UID = "another"
	for name, test := range map[string]struct {
		api           []runtime.Object
		gone, written bool
	}{
		"it was not written": {api: []runtime.Object{there}},
		"it was written":     {api: []runtime.Object{allocated}, written: true},
		"gone":               {gone: true},
		"replaced":           {api: []runtime.Object{other}, gone: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := New(fake.NewClientset(test.api...), clocktesting.NewFakePassiveClock(time.Now()))
			got, err := w.Settle(t.Context(), claim())
			if err != nil || (got == nil) != test.gone {
				t.Fatalf("%v, %v", got, err)
			}
			if test.gone {
				return
			}
			if written := got.Status.Allocation != nil; written != test.written || (got.Annotations[annotationFence] != "") == written {
				t.Errorf("written: %t, annotations %v", written, got.Annotations)
			}
		})
	}
}

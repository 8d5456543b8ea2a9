package controller

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// A cluster in which no replica of the webhook can be reached goes on without it:
// even a claim that it would refuse is created.
func TestWebhookThatDoesNotAnswerIsIgnored(t *testing.T) {
	b := newWebhookBed(t)
	for _, stop := range b.stops {
		stop()
	}
	accepted := func(t *testing.T) {
		t.Helper()
		// More than the webhook is waited for, twice.
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for _, config := range []string{"", `{vlan: 5000}`} {
			if err := b.admin.Create(ctx, b.claim(t, "v1", "vf", config)); err != nil {
				t.Errorf("a claim with configuration %q: %v", config, err)
			}
		}
	}
	t.Run("nobody listens", accepted)
	if err := b.admin.DeleteAllOf(t.Context(), &discoveryv1.EndpointSlice{}, client.InNamespace(b.prefix)); err != nil {
		t.Fatal(err)
	}
	t.Run("there is no replica", accepted)
	t.Run("who listens says nothing", func(t *testing.T) {
		called := b.silent(t)
		until(t, "the webhook is called", func() bool {
			accepted(t)
			select {
			case <-called:
				return true
			default:
				return t.Failed()
			}
		})
	})
	b.deleteClaims(t)
}

// silent is a replica that hangs. The channel is closed once it is called.
func (b *webhookBed) silent(t *testing.T) <-chan struct{} {
	t.Helper()
	host, _ := b.freeAddress(t, cluster.Rest)
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%s is no TCP address", listener.Addr())
	}
	called := make(chan struct{})
	var group wait.Group
	group.Start(func() {
		var callers []net.Conn
		for {
			caller, err := listener.Accept()
			if err != nil {
				for _, c := range callers {
					err = errors.Join(err, c.Close())
				}
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			if callers = append(callers, caller); len(callers) == 1 {
				close(called)
			}
		}
	})
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		group.Wait()
	})
	b.create(t, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: b.prefix, Name: "silent", Labels: map[string]string{discoveryv1.LabelServiceName: b.secret.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{host}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("webhook"), Port: ptr.To(int32(address.Port)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	})
	return called
}

package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/yaml"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/admission"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/admission/certificates"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// webhookBed is a webhook of the manifests, under names of its own, for one
// namespace of users. Two replicas in this process serve it.
type webhookBed struct {
	admin client.Client
	// prefix is the driver's name and the namespace of the webhook, and begins
	// the names of classes: nothing here is the deployed driver's. Users is the
	// namespace of claims and pods.
	prefix, users string
	secret        objectKey
	replicas      []*certificates.Certificates
	// stops end the replicas.
	stops []func()
}

type objectKey = client.ObjectKey

// newWebhookBed installs the manifests and serves the webhook, with no more
// permissions than the manifests give.
func newWebhookBed(t *testing.T) *webhookBed {
	t.Helper()
	ctrl.SetLogger(klog.Background())
	config := rest.CopyConfig(cluster.Rest)
	config.QPS = -1
	admin, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &webhookBed{admin: admin, prefix: "wh-" + rand.String(5)}
	b.users, b.secret = b.prefix+"-users", objectKey{Namespace: b.prefix, Name: b.prefix + "-webhook"}
	for _, namespace := range []string{b.prefix, b.users} {
		b.create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
	}
	b.create(t, b.class("gpu", "gpu", false))
	b.create(t, b.class("vf", "vf", false))
	b.create(t, b.class("managed-gpu", "gpu", true))
	for _, object := range b.manifests(t) {
		b.create(t, object)
	}
	// Claims and classes are in the role that the controller has besides.
	const account = "eks-hybrid-dra-controller"
	b.create(t, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: b.prefix + "-controller"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: account},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: b.prefix, Name: account}},
	})
	as := rest.CopyConfig(config)
	as.Impersonate.UserName = "system:serviceaccount:" + b.prefix + ":" + account
	for i := range 2 {
		b.serve(t, as, i)
	}
	// The API server trusts the webhook once the leader has told it to.
	until(t, "the certificate is trusted", func() bool {
		var hook admissionv1.ValidatingWebhookConfiguration
		if err := admin.Get(t.Context(), objectKey{Name: b.prefix}, &hook); err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(hook.Webhooks, func(w admissionv1.ValidatingWebhook) bool { return len(w.ClientConfig.CABundle) == 0 })
	})
	// And calls it a moment later.
	until(t, "the webhook is called", func() bool {
		err := b.tryClaim(t, "v1", "vf", `{vlan: 5000}`)
		if err == nil {
			b.deleteClaims(t)
		}
		return err != nil
	})
	return b
}

// manifests returns controller-webhook.yaml with names of the bed's own, and for the users'
// namespace alone.
func (b *webhookBed) manifests(t *testing.T) []client.Object {
	t.Helper()
	root, err := harness.Repository()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, "deployments", "manifests", "base", "controller-webhook.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(
		"eks-hybrid-dra-webhook", b.secret.Name,
		"namespace: eks-hybrid-dra\n", "namespace: "+b.prefix+"\n",
		"  name: eks-hybrid-dra\n", "  name: "+b.prefix+"\n",
		`resourceNames: ["eks-hybrid-dra"]`, `resourceNames: ["`+b.prefix+`"]`,
	).Replace(string(content))
	var objects []client.Object
	for document := range strings.SplitSeq(text, "\n---\n") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), object); err != nil {
			t.Fatal(err)
		}
		if object.GetKind() != "ValidatingWebhookConfiguration" {
			objects = append(objects, object)
			continue
		}
		hook := &admissionv1.ValidatingWebhookConfiguration{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(object.Object, hook, true); err != nil {
			t.Fatal(err)
		}
		for i := range hook.Webhooks {
			w := &hook.Webhooks[i]
			if *w.FailurePolicy != admissionv1.Ignore || *w.TimeoutSeconds != 5 || *w.SideEffects != admissionv1.SideEffectClassNone {
				t.Errorf("%s: %v, %d s, %v", w.Name, *w.FailurePolicy, *w.TimeoutSeconds, *w.SideEffects)
			}
			w.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: b.users}}
		}
		objects = append(objects, hook)
	}
	return objects
}

// serve runs a replica. The first one leads.
func (b *webhookBed) serve(t *testing.T, config *rest.Config, i int) {
	t.Helper()
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	certs := certificates.New(kube, certificates.Options{
		Namespace: b.secret.Namespace, Secret: b.secret.Name, Service: b.secret.Name, Webhook: b.prefix,
	})
	b.replicas = append(b.replicas, certs)
	reader, err := cache.New(config, cache.Options{Scheme: clientgoscheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	validator, err := admission.New(b.prefix, reader)
	if err != nil {
		t.Fatal(err)
	}
	host, port := b.freeAddress(t, config)
	server := webhook.NewServer(webhook.Options{Host: host, Port: port, TLSOpts: []func(*tls.Config){certs.Configure}})
	validator.Register(server)
	run := []func(context.Context) error{certs.Serving().Start, reader.Start, server.Start}
	if i == 0 {
		run = append(run, certs.Keeping().Start)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var group wait.Group
	for _, f := range run {
		group.Start(func() {
			if err := f(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	stop := func() {
		cancel()
		group.Wait()
	}
	b.stops = append(b.stops, stop)
	t.Cleanup(stop)
	informed, cancelInformed := context.WithTimeout(ctx, patience)
	defer cancelInformed()
	for _, object := range []client.Object{&resourceapi.DeviceClass{}, &resourceapi.ResourceClaim{}, &resourceapi.ResourceClaimTemplate{}} {
		if _, err := reader.GetInformer(informed, object); err != nil {
			t.Fatalf("read objects of type %T: %v", object, err)
		}
	}
	b.create(t, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: b.prefix, Name: fmt.Sprintf("replica-%d", i), Labels: map[string]string{discoveryv1.LabelServiceName: b.secret.Name}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{host}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}}},
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("webhook"), Port: ptr.To(int32(port)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	})
}

// freeAddress returns an address of this host that the API server can reach, and
// a port that is free.
func (b *webhookBed) freeAddress(t *testing.T, config *rest.Config) (string, int) {
	t.Helper()
	api, err := url.Parse(config.Host)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", api.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	host, _, err := net.SplitHostPort(conn.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	address, ok := listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("%s is no TCP address", listener.Addr())
	}
	return host, address.Port
}

func TestWebhookRefusesInEveryVersion(t *testing.T) {
	// Versions that are off by default.
	const betas = "resource.k8s.io/v1beta1=%[1]t,resource.k8s.io/v1beta2=%[1]t"
	err := cluster.Serve(t.Context(), fmt.Sprintf(betas, true))
	all := err == nil
	if all {
		t.Cleanup(func() {
			if err := cluster.Serve(context.Background(), fmt.Sprintf(betas, false)); err != nil {
				t.Error(err)
			}
		})
	} else if !errors.Is(err, harness.ErrNoNode) {
		t.Fatal(err)
	}
	b := newWebhookBed(t)
	for _, version := range []string{"v1", "v1beta2", "v1beta1"} {
		t.Run(version, func(t *testing.T) {
			err := b.tryClaim(t, version, "vf", "")
			if meta.IsNoMatchError(err) && !all {
				t.Skipf("this API server does not serve resource.k8s.io/%s", version)
			}
			if err != nil {
				t.Fatalf("a good claim is refused: %v", err)
			}
			t.Run("claims", func(t *testing.T) {
				b.refuses(t, version, "", func(claim *unstructured.Unstructured) *unstructured.Unstructured { return claim })
				gang := b.claim(t, version, "managed-gpu", "")
				gang.SetLabels(map[string]string{"eks-hybrid-dra/gang": "train", "eks-hybrid-dra/gang-size": "2"})
				if err := b.admin.Create(t.Context(), gang); err != nil {
					t.Fatalf("a good gang is refused: %v", err)
				}
				gang.SetLabels(map[string]string{"eks-hybrid-dra/gang": "train"})
				refused(t, b.admin.Update(t.Context(), gang), "gang-size")
			})
			t.Run("templates", func(t *testing.T) { b.refuses(t, version, "spec.", templateOf) })
		})
	}
	b.deleteClaims(t)
}

func TestWebhookRefusesPodsThatDoNotUseTheirClaim(t *testing.T) {
	b := newWebhookBed(t)
	template := &resourceapi.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: b.users, Name: "gpu"}}
	template.Spec.Spec.Devices.Requests = []resourceapi.DeviceRequest{{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: b.prefix + "-gpu"}}}
	b.create(t, template)
	pod := func(template string, uses bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: b.users, GenerateName: "p-"}}
		// Nobody is to run it.
		p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/never"}}
		p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "dev", ResourceClaimTemplateName: &template}}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: "none"}}
		if uses {
			p.Spec.Containers[0].Resources.Claims = []corev1.ResourceClaim{{Name: "dev"}}
		}
		return p
	}
	account := &corev1.ServiceAccount{}
	until(t, "pods can be made", func() bool {
		return b.admin.Get(t.Context(), objectKey{Namespace: b.users, Name: "default"}, account) == nil
	})
	// Each replica hears of the template in its own time.
	until(t, "such a pod is refused by both replicas", func() bool {
		for range 8 {
			p := pod("gpu", false)
			if err := b.admin.Create(t.Context(), p); err == nil {
				if err := b.admin.Delete(t.Context(), p); err != nil {
					t.Error(err)
				}
				return false
			}
		}
		return true
	})
	refused(t, b.admin.Create(t.Context(), pod("gpu", false)), "spec.resourceClaims[0]", "- name: dev")
	b.create(t, pod("gpu", true))
	b.create(t, pod("to-come", false))
}

// TestWebhookCertificateIsMadeAnew takes it away, as an admin would after its
// key was stolen.
func TestWebhookCertificateIsMadeAnew(t *testing.T) {
	b := newWebhookBed(t)
	var secret corev1.Secret
	if err := b.admin.Get(t.Context(), b.secret, &secret); err != nil {
		t.Fatal(err)
	}
	before := string(secret.Data["tls.crt"])
	if before == "" || len(secret.Data["ca.key"]) > 0 {
		t.Fatalf("the Secret has keys %v", secret.Data)
	}
	secret.Data = nil
	if err := b.admin.Update(t.Context(), &secret); err != nil {
		t.Fatal(err)
	}
	until(t, "there is another certificate", func() bool {
		if err := b.admin.Get(t.Context(), b.secret, &secret); err != nil {
			t.Fatal(err)
		}
		now := string(secret.Data["tls.crt"])
		return now != "" && now != before
	})
	until(t, "both replicas are called again", func() bool {
		for range 8 {
			if b.tryClaim(t, "v1", "vf", `{vlan: 5000}`) == nil {
				b.deleteClaims(t)
				return false
			}
		}
		return true
	})
}

// TestApplyingTheManifestsAgainKeepsTheCertificate is what happens in an upgrade
// of the deployed controller.
func TestApplyingTheManifestsAgainKeepsTheCertificate(t *testing.T) {
	admin, err := client.New(cluster.Rest, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	read := func() (cert string, bundles []string) {
		var secret corev1.Secret
		var hook admissionv1.ValidatingWebhookConfiguration
		if err := errors.Join(admin.Get(t.Context(), objectKey{Namespace: harness.Namespace, Name: "eks-hybrid-dra-webhook"}, &secret),
			admin.Get(t.Context(), objectKey{Name: "eks-hybrid-dra"}, &hook)); err != nil {
			t.Fatal(err)
		}
		for _, w := range hook.Webhooks {
			bundles = append(bundles, string(w.ClientConfig.CABundle))
		}
		return string(secret.Data["tls.crt"]), bundles
	}
	until(t, "the deployed webhook is trusted", func() bool {
		cert, bundles := read()
		return cert != "" && !slices.Contains(bundles, "")
	})
	cert, bundles := read()
	if err := cluster.ApplyKustomization(t.Context(), simulated); err != nil {
		t.Fatal(err)
	}
	certAfter, bundlesAfter := read()
	if cert != certAfter || !slices.Equal(bundles, bundlesAfter) {
		t.Error("the certificate, or what the API server trusts, is another one after the manifests were applied again")
	}
}

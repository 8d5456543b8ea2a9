package attach

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/plugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/pods"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/draclient"
)

const (
	// node is a node that no kubelet runs, claimNamespace that of its claims.
	node, claimNamespace = "bench-node", "bench-claims"
	// vfs is how many VFs are used in turn.
	vfs = 8
	// staticAddress is a claim's configuration.
	staticAddress = `{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"VfConfig","addresses":["192.168.10.1/24"]}`
)

// bed is a plugin that runs as a plain process, for a node that it alone knows.
type bed struct {
	*Suite
	kind    plugin.Kind
	place   plugin.Place
	host    *namespace
	process *plugin.Process
	kubelet *draclient.Plugin
	pod     *corev1.Pod
}

// attach measures the hook that joins a VF to a pod, playing kubelet and the
// container runtime.
func (s *Suite) attach(ctx context.Context) (err error) {
	b := &bed{Suite: s, place: plugin.Place{KubeletRoot: s.KubeletRoot, CDIRoot: s.CDIRoot, Node: node, Kubeconfig: s.Cluster.Kubeconfig}}
	defer func() { err = errors.Join(err, b.tearDown(ctx)) }()
	if err := b.setUp(ctx); err != nil {
		return err
	}
	claims, err := b.claims(ctx)
	if err != nil {
		return err
	}
	// The first use of each VF fills caches and does not count.
	for n := range vfs + s.Size.Attach {
		if err := b.attachOnce(ctx, claims[n%vfs], n); err != nil {
			return b.explain(err)
		}
	}
	return nil
}

// attachOnce gives a VF to a new pod sandbox and takes it back.
func (b *bed) attachOnce(ctx context.Context, claim draclient.Claim, n int) (err error) {
	if _, err := b.kubelet.PrepareOne(ctx, claim); err != nil {
		return err
	}
	hook, err := hookOf(b.CDIRoot, claim)
	if err != nil {
		return err
	}
	box, err := newSandbox(ctx, b.pod, filepath.Join(b.Work, "bundles"), fmt.Sprintf("sandbox-%d", n))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.close()) }()
	took, err := box.run(ctx, hook)
	if err != nil {
		return err
	}
	if n >= vfs {
		b.keep(SamplesAttach, took)
	}
	if names, err := box.interfaces(); err != nil || len(names) != 1 {
		return errors.Join(fmt.Errorf("claim %s: after the hook has run, the pod has the interfaces %q, want one", claim, names), err)
	}
	return b.kubelet.UnprepareOne(ctx, claim)
}

func (b *bed) setUp(ctx context.Context) (err error) {
	if b.host, err = newNamespace(ctx); err != nil {
		return err
	}
	b.kind, err = plugin.Ours(b.Image, filepath.Join(b.Work, "programs"), "--enable-sriov", "--host-netns="+b.host.path())
	if err != nil {
		return err
	}
	if err := b.clear(ctx); err != nil {
		return err
	}
	client := b.Cluster.Client
	if err := pods.NewNamespace(ctx, client, claimNamespace); err != nil {
		return err
	}
	if _, err := draclient.CreateNode(ctx, client, node); err != nil {
		return err
	}
	if b.pod, err = draclient.CreatePod(ctx, client, types.NamespacedName{Namespace: claimNamespace, Name: "bench"}, node); err != nil {
		return err
	}
	if b.process, err = b.kind.Start(ctx, b.place, filepath.Join(b.Work, "plugin.log")); err != nil {
		return err
	}
	find, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if b.kubelet, err = draclient.Find(find, b.place.RegistrarDir(), b.kind.Driver); err != nil {
		return b.explain(err)
	}
	return nil
}

// claims makes a claim for each of the first VFs.
func (b *bed) claims(ctx context.Context) ([]draclient.Claim, error) {
	var free []draclient.Result
	err := poll(ctx, "the VFs of the plugin", func(ctx context.Context) (_ bool, err error) {
		select {
		case <-b.process.Ended():
			return false, b.process.Failure()
		default:
			free, err = b.publishedVFs(ctx)
			return len(free) >= vfs, err
		}
	})
	if err != nil {
		return nil, err
	}
	var claims []draclient.Claim
	for n, vf := range free[:vfs] {
		claim, err := draclient.CreateAllocated(ctx, b.Cluster.Client, draclient.Allocation{
			Namespace: claimNamespace, Name: fmt.Sprintf("vf-%d", n), Node: node, Pods: []*corev1.Pod{b.pod},
			Results: []draclient.Result{vf}, Configs: []draclient.Config{{Driver: b.kind.Driver, JSON: staticAddress}},
		})
		if err != nil {
			return nil, err
		}
		claims = append(claims, draclient.ClaimOf(claim))
	}
	return claims, nil
}

// publishedVFs returns the VFs that the plugin has to give.
func (b *bed) publishedVFs(ctx context.Context) ([]draclient.Result, error) {
	slices, err := b.Cluster.Client.ResourceV1().ResourceSlices().List(ctx, slicesOf(b.kind.Driver))
	if err != nil {
		return nil, fmt.Errorf("list the slices of node %s: %w", node, err)
	}
	var found []draclient.Result
	for _, slice := range slices.Items {
		for _, dev := range slice.Spec.Devices {
			kind := dev.Attributes["type"].StringValue
			if kind != nil && *kind == "vf" && len(dev.Taints) == 0 {
				found = append(found, draclient.Result{Driver: b.kind.Driver, Pool: slice.Spec.Pool.Name, Device: dev.Name})
			}
		}
	}
	return found, nil
}

func slicesOf(driver string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: fields.Set{
		resourceapi.ResourceSliceSelectorDriver: driver, resourceapi.ResourceSliceSelectorNodeName: node,
	}.String()}
}

// explain adds what the plugin said last, if it has ended.
func (b *bed) explain(err error) error {
	select {
	case <-b.process.Ended():
		return errors.Join(err, b.process.Failure())
	default:
		return err
	}
}

// tearDown also works after ctx is done, and after half a setUp.
func (b *bed) tearDown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	var errs []error
	if b.kubelet != nil {
		errs = append(errs, b.kubelet.Close())
	}
	if b.process != nil {
		errs = append(errs, b.process.Stop())
	}
	if b.host != nil {
		errs = append(errs, b.host.close())
	}
	return errors.Join(append(errs, b.clear(ctx))...)
}

// clear removes from the cluster what this run, or an earlier one that was cut
// off, has left there.
func (b *bed) clear(ctx context.Context) error {
	client := b.Cluster.Client
	if b.kind.Driver != "" {
		if err := client.ResourceV1().ResourceSlices().DeleteCollection(ctx, metav1.DeleteOptions{}, slicesOf(b.kind.Driver)); err != nil {
			return fmt.Errorf("delete the slices of node %s: %w", node, err)
		}
	}
	// Nobody runs the pod, so nobody would confirm its end.
	now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
	if err := client.CoreV1().Pods(claimNamespace).DeleteCollection(ctx, now, metav1.ListOptions{}); err != nil {
		return fmt.Errorf("delete the pod of the claims: %w", err)
	}
	if err := pods.DeleteNamespace(ctx, client, claimNamespace); err != nil {
		return err
	}
	if err := pods.IgnoreNotFound(client.CoreV1().Nodes().Delete(ctx, node, metav1.DeleteOptions{})); err != nil {
		return fmt.Errorf("delete node %s: %w", node, err)
	}
	return nil
}

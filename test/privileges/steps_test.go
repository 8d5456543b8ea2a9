package privileges

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/allocation/gangplan"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// step is a part of the scenario. It can be repeated, also after it was broken
// off, and leaves the cluster as it was.
type step struct {
	name string
	take func(s *scene, ctx context.Context) error
	// removes tells that roles are removed while programs still run.
	removes bool
}

// steps are the whole scenario.
func steps() []step {
	return []step{
		{name: "the plugin starts on a new node", take: (*scene).pluginStarts},
		{name: "a stale slice is removed", take: (*scene).staleSlice},
		{name: "an admin taints a GPU", take: (*scene).taintedGPU},
		{name: "a pod uses a network of another namespace", take: (*scene).networkedPod},
		{name: "a claim that a program made", take: (*scene).claimOfProgram},
		{name: "the controller starts on a new cluster", take: (*scene).controllerStarts},
		{name: "the leader changes", take: (*scene).leaderChanges},
		{name: "a claim of a managed class", take: (*scene).managedClaim},
		{name: "a pod that forgets its claim", take: (*scene).forgetfulPod},
		{name: "a gang", take: (*scene).gang},
		{name: "a gang beside its old plan", take: (*scene).gangAgain},
		{name: "a gang that lacks a claim", take: (*scene).gangLacks},
		{name: "a claim that waits", take: (*scene).claimWaits},
		{name: "a registry without an answer", take: (*scene).registryFails},
		{name: "a network plugin's DaemonSet", take: (*scene).networkPlugin},
		{name: "copies of a pull secret", take: (*scene).pullSecret},
		{name: "the driver is uninstalled", take: (*scene).uninstall, removes: true},
	}
}

// The release's programs.
func plugin() component        { return component{"kubelet-plugin", "daemonset"} }
func controller() component    { return component{"controller", "deployment"} }
func registryTrust() component { return component{"registry-trust", "daemonset"} }

// pluginStarts has nothing published before, as on a node that is new.
func (s *scene) pluginStarts(ctx context.Context) error {
	err := s.Client.ResourceV1().ResourceSlices().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "spec.driver=" + harness.DriverName})
	if err != nil {
		return err
	}
	// And no labels that the plugin could have set.
	if _, err := s.Kubectl(ctx, "label", "node", "--all", "gpu-", "gpu-count-"); err != nil {
		return err
	}
	if err := s.renew(ctx, plugin()); err != nil {
		return err
	}
	if err := eventually(ctx, "the node has its labels", s.labelled); err != nil {
		return err
	}
	_, err = s.WaitDevices(ctx, gpusPerNode)
	return err
}

// staleSlice is one that a plugin of long ago has left.
func (s *scene) staleSlice(ctx context.Context) error {
	published, err := s.Slices(ctx)
	if err != nil || len(published) == 0 {
		return fmt.Errorf("there are %d slices: %w", len(published), err)
	}
	stale := &resourceapi.ResourceSlice{ObjectMeta: metav1.ObjectMeta{GenerateName: "stale-"}}
	published[0].Spec.DeepCopyInto(&stale.Spec)
	stale.Spec.Pool.Generation = 1
	made, err := s.Client.ResourceV1().ResourceSlices().Create(ctx, stale, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return eventually(ctx, "the stale slice is gone", func(ctx context.Context) error {
		_, err := s.Client.ResourceV1().ResourceSlices().Get(ctx, made.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(fmt.Errorf("%s is there", made.Name), err)
	})
}

// taintedGPU has the plugin change the pair that the GPU is a part of.
func (s *scene) taintedGPU(ctx context.Context) error {
	if err := errors.Join(s.removeRule(ctx), s.waitTaintedPair(ctx, false), s.makeRule(ctx)); err != nil {
		return err
	}
	return errors.Join(s.waitTaintedPair(ctx, true), s.removeRule(ctx), s.waitTaintedPair(ctx, false))
}

// makeRule takes a GPU out of service.
func (s *scene) makeRule(ctx context.Context) error {
	_, err := s.Client.ResourceV1().DeviceTaintRules().Create(ctx, &resourceapi.DeviceTaintRule{
		ObjectMeta: metav1.ObjectMeta{Name: "service"},
		Spec: resourceapi.DeviceTaintRuleSpec{
			DeviceSelector: &resourceapi.DeviceTaintSelector{Driver: ptr.To(harness.DriverName), Device: ptr.To("gpu-0")},
			Taint:          resourceapi.DeviceTaint{Key: "example.com/service", Effect: resourceapi.DeviceTaintEffectNoSchedule},
		},
	}, metav1.CreateOptions{})
	return err
}

func (s *scene) removeRule(ctx context.Context) error {
	err := s.Client.ResourceV1().DeviceTaintRules().Delete(ctx, "service", metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (s *scene) waitTaintedPair(ctx context.Context, want bool) error {
	return eventually(ctx, fmt.Sprintf("the pair of gpu-0 is tainted: %t", want), func(ctx context.Context) error {
		published, err := s.Slices(ctx)
		for _, slice := range published {
			for _, d := range slice.Spec.Devices {
				tainted := slices.ContainsFunc(d.Taints, func(t resourceapi.DeviceTaint) bool { return t.Key == "example.com/service" })
				if d.Name == "gpu-0-vf" && tainted == want {
					return nil
				}
			}
		}
		return errors.Join(errors.New("it is not"), err)
	})
}

// networkedPod reads the network and whether its namespace allows that, and the
// claim's status says what became of it.
func (s *scene) networkedPod(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	if err := s.applyOwn(ctx, "network.yaml"); err != nil {
		return err
	}
	// The functions of the simulated machine are none that a CNI plugin can move.
	if _, err := s.WaitEvent(ctx, users, "networked", "its CNI plugins said that they have made interface"); err != nil {
		return err
	}
	return errors.Join(s.waitClaimTells(ctx), s.clear(ctx))
}

// claimOfProgram has its parameters in a form that kubectl does not send, which the
// API server takes for another one when the claim's status is applied.
func (s *scene) claimOfProgram(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	claim := &resourceapi.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Name: "made"}}
	claim.Spec.Devices = resourceapi.DeviceClaim{
		Requests: []resourceapi.DeviceRequest{{Name: "vf", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: "vf.eks-hybrid-dra"}}},
		Config: []resourceapi.DeviceClaimConfiguration{{DeviceConfiguration: resourceapi.DeviceConfiguration{Opaque: &resourceapi.OpaqueDeviceConfiguration{
			Driver:     harness.DriverName,
			Parameters: runtime.RawExtension{Raw: []byte(`{"kind": "VfConfig", "apiVersion": "resource.eks-hybrid-dra/v1alpha1", "addresses": ["10.70.0.1/24"]}`)},
		}}}},
	}
	if _, err := s.Client.ResourceV1().ResourceClaims(users).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := s.applyOwn(ctx, "made.yaml"); err != nil {
		return err
	}
	if _, err := s.WaitPod(ctx, users, "made", harness.Running()); err != nil {
		return err
	}
	return errors.Join(s.waitClaimTells(ctx), s.clear(ctx))
}

// waitClaimTells returns when the only claim says what became of its device.
func (s *scene) waitClaimTells(ctx context.Context) error {
	return eventually(ctx, "the claim tells of its device", func(ctx context.Context) error {
		claims, err := s.Client.ResourceV1().ResourceClaims(users).List(ctx, metav1.ListOptions{})
		if err != nil || len(claims.Items) != 1 || len(claims.Items[0].Status.Devices) != 1 {
			return errors.Join(errors.New("it does not"), err)
		}
		return nil
	})
}

// controllerStarts finds no lease and no certificate.
func (s *scene) controllerStarts(ctx context.Context) error {
	err := s.Client.CoordinationV1().Leases(harness.Namespace).Delete(ctx, release+"-controller", metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	_, err = s.Client.CoreV1().Secrets(harness.Namespace).Patch(ctx, release+"-webhook", types.MergePatchType, []byte(`{"data":null}`), metav1.PatchOptions{})
	if err != nil {
		return err
	}
	if err := s.renew(ctx, controller()); err != nil {
		return err
	}
	return eventually(ctx, "the webhook is trusted", s.webhookTrusted)
}

func (s *scene) webhookTrusted(ctx context.Context) error {
	secret, err := s.Client.CoreV1().Secrets(harness.Namespace).Get(ctx, release+"-webhook", metav1.GetOptions{})
	if err != nil {
		return err
	}
	config, err := s.Client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(ctx, release, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, hook := range config.Webhooks {
		if len(secret.Data["ca.crt"]) == 0 || !strings.Contains(string(hook.ClientConfig.CABundle), strings.TrimSpace(string(secret.Data["ca.crt"]))) {
			return fmt.Errorf("webhook %s trusts another authority than the Secret has", hook.Name)
		}
	}
	return nil
}

// leaderChanges finds a lease of another leader.
func (s *scene) leaderChanges(ctx context.Context) error { return s.renew(ctx, controller()) }

// managedClaim gets its devices from the controller.
func (s *scene) managedClaim(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	if err := s.apply(ctx, "managed-gpu.yaml"); err != nil {
		return err
	}
	_, err := s.WaitPod(ctx, users, "managed-gpu", harness.Succeeded())
	return errors.Join(err, s.clear(ctx))
}

// forgetfulPod has a claim that none of its containers lists.
func (s *scene) forgetfulPod(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	// Where the webhook does not answer, the pod is made.
	err := eventually(ctx, "the pod is refused", func(ctx context.Context) error {
		err := s.applyOwn(ctx, "forgetful.yaml")
		if err != nil && strings.Contains(err.Error(), "no container uses this claim") {
			return nil
		}
		return errors.Join(errors.New("it was not refused"), err, s.clear(ctx))
	})
	return errors.Join(err, s.clear(ctx))
}

// gang is planned, and then given its devices.
func (s *scene) gang(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	if err := s.apply(ctx, "managed-gang.yaml"); err != nil {
		return err
	}
	plans := s.Client.CoreV1().ConfigMaps(harness.Namespace)
	err := eventually(ctx, "the gang has run", func(ctx context.Context) error {
		job, err := s.Client.BatchV1().Jobs(users).Get(ctx, "managed-gang", metav1.GetOptions{})
		if err != nil || job.Status.Succeeded == 0 || job.Status.Succeeded != *job.Spec.Completions {
			return errors.Join(errors.New("its job is not complete"), err)
		}
		left, err := plans.List(ctx, metav1.ListOptions{LabelSelector: gangplan.Label + "=true"})
		if err == nil && len(left.Items) > 0 {
			err = errors.New("its plan is there")
		}
		return err
	})
	return errors.Join(err, s.clear(ctx))
}

// gangAgain finds something where its plan is to be.
func (s *scene) gangAgain(ctx context.Context) error {
	name := planOf(types.NamespacedName{Namespace: users, Name: "managed-gang"})
	old := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{gangplan.Label: "true"}}}
	_, err := s.Client.CoreV1().ConfigMaps(harness.Namespace).Create(ctx, old, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return s.gang(ctx)
}

// planOf is the name of the ConfigMap that package gangplan keeps a plan in. If it
// were another one, the right to update plans would be found unused.
func planOf(gang types.NamespacedName) string {
	sum := sha256.Sum256([]byte(gang.String()))
	return "eks-hybrid-dra-gang-" + hex.EncodeToString(sum[:10])
}

// gangLacks tells the pods of a gang why they wait.
func (s *scene) gangLacks(ctx context.Context) error {
	if err := s.clear(ctx); err != nil {
		return err
	}
	if err := s.applyOwn(ctx, "gang.yaml"); err != nil {
		return err
	}
	err := eventually(ctx, "the pod says that its gang waits", func(ctx context.Context) error {
		pod, err := s.Client.CoreV1().Pods(users).Get(ctx, "alone", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == "eks-hybrid-dra/GangAllocated" {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %+v", pod.Status.Conditions)
	})
	return errors.Join(err, s.clear(ctx))
}

// claimWaits is told why it waits, then something else, and then the first again,
// which is counted in its event.
func (s *scene) claimWaits(ctx context.Context) error {
	if err := errors.Join(s.clear(ctx), s.removeRule(ctx)); err != nil {
		return err
	}
	if err := s.applyOwn(ctx, "waits.yaml"); err != nil {
		return err
	}
	claim, err := s.Client.ResourceV1().ResourceClaims(users).Get(ctx, "waits", metav1.GetOptions{})
	if err != nil {
		return err
	}
	told := func(text string, count int32) error {
		return eventually(ctx, fmt.Sprintf("the claim was told %d times: %s", count, text), func(ctx context.Context) error {
			list, err := s.Client.CoreV1().Events(users).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.uid=" + string(claim.UID)})
			if err != nil {
				return err
			}
			all := ""
			for _, event := range list.Items {
				if strings.Contains(event.Message, text) && event.Count >= count {
					return nil
				}
				all += fmt.Sprintf("\n%d times: %s", event.Count, event.Message)
			}
			return fmt.Errorf("there are%s", all)
		})
	}
	const free, tainted = "8 are free", "1 is tainted"
	if err := told(free, 1); err != nil {
		return err
	}
	if err := s.makeRule(ctx); err != nil {
		return err
	}
	if err := told(tainted, 1); err != nil {
		return err
	}
	if err := s.removeRule(ctx); err != nil {
		return err
	}
	return errors.Join(told(free, 2), s.clear(ctx))
}

// registryFails is told by an event.
func (s *scene) registryFails(ctx context.Context) error { return s.renew(ctx, registryTrust()) }

// prepare makes what the steps need.
func (s *scene) prepare(ctx context.Context) error {
	if err := s.namespace(ctx, users, nil); err != nil {
		return err
	}
	if err := s.namespace(ctx, others, map[string]string{"eks-hybrid-dra/allow-network-attachments-from": users}); err != nil {
		return err
	}
	if err := s.applyOwn(ctx, "network-api.yaml"); err != nil {
		return err
	}
	if _, err := s.Kubectl(ctx, "wait", "--for=condition=Established", "crd/network-attachment-definitions.k8s.cni.cncf.io", "--timeout=60s"); err != nil {
		return err
	}
	return nil
}

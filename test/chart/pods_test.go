package chart

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const users = "users"

// template asks for one device of a class.
func template(name, class string) *resourceapi.ResourceClaimTemplate {
	return &resourceapi.ResourceClaimTemplate{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: resourceapi.ResourceClaimTemplateSpec{Spec: resourceapi.ResourceClaimSpec{Devices: resourceapi.DeviceClaim{
			Requests: []resourceapi.DeviceRequest{{Name: "r", Exactly: &resourceapi.ExactDeviceRequest{DeviceClassName: class}}},
		}}},
	}
}

// use makes a pod for each kind of device, and returns them as they run.
func (s *site) use() map[string]*corev1.Pod {
	s.t.Helper()
	pods := map[string]*corev1.Pod{}
	for _, kind := range []string{"gpu", "vf", "gpu-vf"} {
		_, err := cluster.Client.ResourceV1().ResourceClaimTemplates(users).Create(s.ctx, template(kind, kind+"."+harness.DriverName), metav1.CreateOptions{})
		s.must(err)
		_, err = cluster.Client.CoreV1().Pods(users).Create(s.ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: kind},
			Spec: corev1.PodSpec{
				TerminationGracePeriodSeconds: ptr.To[int64](1),
				Containers: []corev1.Container{{
					Name: "work", Image: "busybox:1.36", Command: []string{"sleep", "infinity"},
					Resources: corev1.ResourceRequirements{Claims: []corev1.ResourceClaim{{Name: "device"}}},
				}},
				ResourceClaims: []corev1.PodResourceClaim{{Name: "device", ResourceClaimTemplateName: &kind}},
			},
		}, metav1.CreateOptions{})
		s.must(err)
	}
	for _, kind := range []string{"gpu", "vf", "gpu-vf"} {
		pod, err := cluster.WaitPod(s.patient(), users, kind, harness.Running())
		s.must(err)
		pods[kind] = pod
	}
	return pods
}

// wantUndisturbed fails the test unless the pods have their containers and
// their devices still.
func (s *site) wantUndisturbed(pods map[string]*corev1.Pod) {
	s.t.Helper()
	for kind, before := range pods {
		now, err := cluster.Client.CoreV1().Pods(users).Get(s.ctx, kind, metav1.GetOptions{})
		s.must(err)
		if now.UID != before.UID || harness.ContainerID(now, "work") != harness.ContainerID(before, "work") || now.Status.ContainerStatuses[0].RestartCount != 0 {
			s.t.Errorf("pod %s was disturbed: container %q with %d restarts, was %q", kind, harness.ContainerID(now, "work"),
				now.Status.ContainerStatuses[0].RestartCount, harness.ContainerID(before, "work"))
		}
		if strings.HasPrefix(kind, "gpu") {
			if gpus := harness.GPUs(s.kubectl("exec", "-n", users, kind, "--", "nvidia-smi", "-L")); len(gpus) != 1 {
				s.t.Errorf("pod %s sees %d GPUs", kind, len(gpus))
			}
		}
		if strings.HasSuffix(kind, "vf") {
			if shown := s.kubectl("exec", "-n", users, kind, "--", "ip", "address", "show", "net1"); !strings.Contains(shown, "net1") {
				s.t.Errorf("pod %s has lost its VF: %s", kind, shown)
			}
		}
	}
}

// quit deletes pods and waits until they, and their claims, are gone.
func (s *site) quit(kinds ...string) {
	s.t.Helper()
	for _, kind := range kinds {
		s.kubectl("delete", "pod", "-n", users, kind, "--wait=false")
	}
	for _, kind := range kinds {
		s.must(cluster.WaitPodGone(s.patient(), users, kind))
	}
	s.until("without the claims of "+strings.Join(kinds, ", "), func() error {
		claims, err := cluster.Client.ResourceV1().ResourceClaims(users).List(s.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, claim := range claims.Items {
			for _, kind := range kinds {
				if strings.HasPrefix(claim.Name, kind+"-device-") {
					return fmt.Errorf("claim %s is left", claim.Name)
				}
			}
		}
		return nil
	})
}

// badClaim is one that only the webhook refuses.
func badClaim() *resourceapi.ResourceClaimTemplate {
	bad := template("bad", "vf."+harness.DriverName)
	bad.Spec.Spec.Devices.Config = []resourceapi.DeviceClaimConfiguration{{DeviceConfiguration: resourceapi.DeviceConfiguration{
		Opaque: &resourceapi.OpaqueDeviceConfiguration{Driver: harness.DriverName, Parameters: runtime.RawExtension{
			Raw: []byte(`{"apiVersion":"resource.eks-hybrid-dra/v1alpha1","kind":"VfConfig","vlan":5000}`),
		}},
	}}}
	return bad
}

// admitted asks the API server whether it would accept what the webhook refuses.
func (s *site) admitted(ctx context.Context) bool {
	_, err := cluster.Client.ResourceV1().ResourceClaimTemplates(users).Create(ctx, badClaim(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil
}

// admission watches for how long the webhook is not asked.
type admission struct {
	stop func() time.Duration
}

func (s *site) watchAdmission() *admission {
	s.t.Helper()
	s.until("refused by the webhook", func() error {
		if s.admitted(s.ctx) {
			return fmt.Errorf("a claim that makes no sense is accepted")
		}
		return nil
	})
	ctx, cancel := context.WithCancel(s.ctx)
	var (
		wg   sync.WaitGroup
		away time.Duration
	)
	wg.Go(func() {
		last := time.Now()
		for ctx.Err() == nil {
			admitted := s.admitted(ctx)
			now := time.Now()
			if admitted {
				away += now.Sub(last)
			}
			last = now
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	return &admission{stop: func() time.Duration {
		cancel()
		wg.Wait()
		return away
	}}
}

// authority is what the API server trusts the webhook by.
func (s *site) authority() string {
	s.t.Helper()
	return s.kubectl("get", "validatingwebhookconfiguration", harness.Namespace, "-o", "jsonpath={.webhooks[*].clientConfig.caBundle}")
}

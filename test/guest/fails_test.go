package guest

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

func TestAPodWhoseVFCannotBeAttachedDoesNotStartAndSaysWhy(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	tests := []struct {
		pod, fields string
		selectors   []string
		change      func(pod *corev1.Pod)
		says        []string
	}{
		{pod: "twice", fields: `"ifName":"twice0"`, says: []string{"vf-0000-", "twice0"}, change: func(pod *corev1.Pod) {
			pod.Spec.ResourceClaims = append(pod.Spec.ResourceClaims, corev1.PodResourceClaim{Name: "other", ResourceClaimTemplateName: ptr.To("twice")})
			pod.Spec.Containers[0].Resources.Claims = append(pod.Spec.Containers[0].Resources.Claims, corev1.ResourceClaim{Name: "other"})
		}},
		{pod: "host", says: []string{"vf-0000-", "hostNetwork"}, change: func(pod *corev1.Pod) { pod.Spec.HostNetwork = true }},
		// What this kernel's drivers refuse, and how they say so.
		{pod: "protocol", fields: `"vlan":5,"proto":"802.1ad"`, says: []string{"vf-0000-", "802.1ad", "protocol not supported"}},
		{pod: "state", fields: `"linkState":"enable"`, selectors: []string{ofNUMANode(1)}, says: []string{"vf-0000-", "link state", "not supported"}},
		// Behind a switch all VFs of a card are in one group.
		{pod: "group", fields: `"mode":"vfio-pci"`, selectors: []string{ofNUMANode(0)}, says: []string{"vf-0000-", "IOMMU group", "ACS"}},
		{pod: "ipam", fields: `"ipam":{"type":"dhcp"}`, selectors: []string{ofNUMANode(1)}, says: []string{"vf-0000-", "dhcp"}},
	}
	for _, test := range tests {
		s.template(test.pod, vfs(1, test.fields, test.selectors...))
		pod := vfPod(test.pod, test.pod)
		if test.change != nil {
			test.change(pod)
		}
		s.create(pod)
	}
	for _, test := range tests {
		s.wantRefused(test.pod, test.says...)
	}
	s.end()
	s.wantHost(before)
}

func TestAPodWhoseVFIsNeverAttachedDoesNotStartAndSaysWhy(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	stop := s.hangs()
	s.template("one", vfs(1, `"ipam":{"type":"whereabouts"}`))
	pod := vfPod("waits", "one")
	pod.Spec.RestartPolicy = corev1.RestartPolicyNever
	s.create(pod)
	s.waitAttaching()
	s.wantRefused("waits", "vf-0000-", "whereabouts")
	stop()
	s.end()
	s.wantHost(before)

	// The VF is as good as before.
	s.template("next", vfs(allVFs, ""))
	s.create(vfPod("next", "next"))
	s.wait("next", harness.Running())
	s.end()
	s.wantHost(before)
}

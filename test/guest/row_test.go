package guest

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// Fifty pods, as many at a time as there are VFs, so that each round begins with
// what the one before has left.
func TestFiftyPodsInARowFindTheirVFsAsTheirClaimsSay(t *testing.T) {
	const rounds = 50 / allVFs
	s := newSpace(t)
	s.waitPublished()
	before := s.host()
	s.template("plain", vfs(1, ""))
	for round := range rounds {
		var texts [allVFs][]string
		for i := range texts {
			name, template := fmt.Sprintf("pod-%d-%d", round, i), "plain"
			texts[i] = []string{"net1", "mtu 1500"}
			if (round+i)%2 == 0 {
				// Its VF has none of it in the next round.
				template = name
				mac, address, mtu := fmt.Sprintf("02:00:00:00:%02x:%02x", round, i), fmt.Sprintf("10.80.%d.%d/24", round, i+1), 1300+i
				s.template(name, vfs(1, fmt.Sprintf(`"vlan":%d,"mac":%q,"mtu":%d,"addresses":[%q]`, 200+i, mac, mtu, address)))
				texts[i] = []string{mac, address, fmt.Sprint("mtu ", mtu)}
			}
			pod := vfPod(name, template, "ip", "address", "show", "net1")
			pod.Spec.RestartPolicy = corev1.RestartPolicyNever
			s.create(pod)
		}
		for i, want := range texts {
			name := fmt.Sprintf("pod-%d-%d", round, i)
			s.wait(name, harness.Succeeded())
			s.wantPrinted(name, "work", want...)
		}
		s.end()
		s.wantHost(before)
	}
}

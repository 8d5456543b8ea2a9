package guest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// mostUnseen is for how long a change to the VFs may go unseen.
const mostUnseen = 2 * time.Second

func TestVFsThatComeAndGoAreSeenAtOnce(t *testing.T) {
	s := newSpace(t)
	s.waitPublished()
	card := cards()[1]
	// A pod has one of them, which it loses.
	s.template("one", vfs(1, `"vlan":178,"mtu":1400`, byAddress(card.vf(0))))
	s.create(vfPod("loses", "one"))
	s.wait("loses", harness.Running())
	s.guest("sh", "-c", "echo 0 > "+card.sysfs("sriov_numvfs"))
	// The driver sees it, and makes them again as it is configured to.
	s.until("made again", func() error {
		number, err := onNode(s.ctx, "cat", card.sysfs("sriov_numvfs"))
		if err == nil && number != fmt.Sprint(card.vfs) {
			err = fmt.Errorf("the card has %s", number)
		}
		return err
	})
	if shown := s.exec("loses", "ip", "address", "show"); strings.Contains(shown, "net1") {
		t.Errorf("the pod still has an interface whose VF was removed:\n%s", shown)
	}
	s.end()
	s.wantAsNew()

	// The whole card goes, with its PF.
	s.create(vfPod("loses-card", "one"))
	s.wait("loses-card", harness.Running())
	t.Cleanup(func() {
		s.guest("sh", "-c", "echo 1 > /sys/bus/pci/rescan")
		s.waitPublished()
	})
	s.guest("sh", "-c", "echo 1 > "+card.sysfs("remove"))
	s.wantSeen("the card was removed")
	s.end()
	s.guest("sh", "-c", "echo 1 > /sys/bus/pci/rescan")
	s.waitPublished()
	s.wantAsNew()
}

// wantAsNew fails the test unless all VFs can be had, and have nothing of what a
// claim set before.
func (s *space) wantAsNew() {
	s.t.Helper()
	s.waitPublished()
	for _, line := range s.host() {
		if strings.Contains(line, "vlan") || strings.Contains(line, "mtu=1400") {
			s.t.Errorf("a VF is not as new: %s", line)
		}
	}
	const name = "all"
	if _, err := world.Client.ResourceV1().ResourceClaimTemplates(s.name).Get(s.ctx, name, metav1.GetOptions{}); err != nil {
		s.template(name, vfs(allVFs, ""))
	}
	s.create(vfPod(name, name))
	s.wait(name, harness.Running())
	s.wantInterface(name, fmt.Sprint("net", allVFs), "mtu 1500")
	s.end()
}

// wantSeen fails the test unless, of the second card, just these VFs are soon
// published.
func (s *space) wantSeen(what string, want ...string) {
	s.t.Helper()
	start := time.Now()
	s.until("published: "+what, func() error {
		var got []string
		published := s.published()
		for i := range cards()[1].vfs {
			if _, there := published[cards()[1].vf(i)]; there {
				got = append(got, cards()[1].vf(i))
			}
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("the card has %v, want %v", got, want)
		}
		return nil
	})
	took := time.Since(start)
	s.t.Logf("%s: seen after %v", what, took)
	if took > mostUnseen {
		s.t.Errorf("%s: seen after %v, want at most %v", what, took, mostUnseen)
	}
}

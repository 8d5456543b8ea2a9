package pairs

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/topology"
)

func TestOptionsOfAConfiguration(t *testing.T) {
	gpu, alone, nic := topology.Address{Bus: 0x1b}, topology.Address{Bus: 0x43}, topology.Address{Bus: 0x40}
	for name, tc := range map[string]struct {
		config v1alpha1.PairingConfig
		want   topology.Pairing
		err    string
	}{
		"none": {want: topology.Pairing{Least: topology.NODE, Fixed: map[topology.Address]topology.Address{}}},
		"all": {
			config: v1alpha1.PairingConfig{LeastAlignment: "PIX", Pairs: []v1alpha1.GPUNICPair{{GPU: "0000:1b:00.0", NIC: "0000:40:00.0"}, {GPU: "0000:43:00.0"}}},
			want:   topology.Pairing{Least: topology.PIX, Fixed: map[topology.Address]topology.Address{gpu: nic, alone: {}}},
		},
		"no alignment": {config: v1alpha1.PairingConfig{LeastAlignment: "near"}, err: `pairing.leastAlignment is "near": want one of [PIX PXB PHB NODE SYS]`},
		"no GPU":       {config: v1alpha1.PairingConfig{Pairs: []v1alpha1.GPUNICPair{{}}}, err: "pairing.pairs[0].gpu: "},
		"no NIC":       {config: v1alpha1.PairingConfig{Pairs: []v1alpha1.GPUNICPair{{GPU: "0000:1b:00.0", NIC: "x"}}}, err: "pairing.pairs[0].nic: "},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := NewOptions(topology.At("/sys"), tc.config)
			switch {
			case tc.err != "":
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("got %v, want %q", err, tc.err)
				}
			case err != nil:
				t.Error(err)
			default:
				if diff := cmp.Diff(tc.want, got.Pairing); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
		})
	}
}

package network

import (
	"net/netip"
	"strings"
	"testing"
)

func TestFreeBlock(t *testing.T) {
	for _, test := range []struct {
		name string
		used []string
		want string
		err  string
	}{
		{name: "nothing used", want: "10.214.0.0/23"},
		{name: "a cluster is there", used: []string{"10.214.0.0/23"}, want: "10.214.2.0/23"},
		{name: "one address inside", used: []string{"10.214.1.6/32", "192.0.2.0/24"}, want: "10.214.2.0/23"},
		{name: "a VPN takes 10/8", used: []string{"10.0.0.0/8"}, want: "172.30.0.0/23"},
		{name: "10/8 and Docker's pools", used: []string{"10.0.0.0/8", "172.16.0.0/12"}, want: "192.168.128.0/23"},
		{name: "gap between", used: []string{"10.214.0.0/23", "10.214.4.0/22"}, want: "10.214.2.0/23"},
		{name: "all used", used: []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"}, err: "no private network is free"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var used []netip.Prefix
			for _, s := range test.used {
				used = append(used, netip.MustParsePrefix(s))
			}
			got, err := FreeBlock(used)
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("got %v, error %v; want error %q", got, err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

func TestUsedOnHostHasLoopback(t *testing.T) {
	used, err := UsedOnHost()
	if err != nil {
		t.Fatal(err)
	}
	if !overlapsAny(netip.MustParsePrefix("127.0.0.1/32"), used) {
		t.Errorf("127.0.0.1 is not among %v", used)
	}
}

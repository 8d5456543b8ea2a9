package image

// recipe changes when what is done with the contents changes.
const recipe = "2"

// programs are taken from the packages, with the libraries that they need.
func programs() []string {
	return []string{
		"usr/bin/dash", "usr/bin/kmod", "usr/bin/lspci", "usr/bin/setpci", "usr/bin/mount", "usr/bin/umount", "usr/bin/ping",
		"usr/sbin/ip", "usr/sbin/bridge", "usr/sbin/ethtool", "usr/sbin/nft", "usr/sbin/ldconfig", "usr/bin/rdma",
	}
}

// modules are the kernel's drivers that the guest may load; what they depend on
// comes along.
func modules() []string {
	return []string{
		// The machine.
		"virtio_net", "virtio_blk", "virtio_rng", "9p", "9pnet_virtio", "crc32c_generic", "ext4",
		// SR-IOV.
		"igb", "igbvf", "vfio-pci", "vfio_iommu_type1", "8021q",
		// RDMA, in software.
		"ib_core", "ib_uverbs", "ib_umad", "rdma_ucm", "rdma_rxe", "crc32_generic",
		// Networks of pods and of tests.
		"veth", "bridge", "br_netfilter", "macvlan", "ipvlan", "dummy", "tun", "vrf", "bonding", "af_packet",
		"nf_tables", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_limit", "nft_log", "nft_fib_inet",
		"nft_reject_inet", "nft_compat", "nf_nat", "nf_conntrack", "xt_comment", "xt_mark", "xt_conntrack", "xt_MASQUERADE",
		// Containers.
		"overlay", "loop", "fuse",
	}
}

// files are further files of the guest.
func files() map[string]string {
	return map[string]string{
		"etc/passwd":      "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
		"etc/group":       "root:x:0:\nnogroup:x:65534:\n",
		"etc/hosts":       "127.0.0.1 localhost\n",
		"etc/hostname":    "guest\n",
		"etc/resolv.conf": "# The guest has no DNS.\n",
		"etc/machine-id":  "6b1d1c9ce0a54d3fa7b8d9e3c5f20718\n",
		"etc/os-release":  "ID=debian\nPRETTY_NAME=\"test guest\"\n",
	}
}

// folders are the mount points and folders that programs expect.
func folders() []string {
	return []string{"dev", "proc", "sys", "run", "tmp", "root", "mnt", "host", "etc", "var/lib", "var/log", "var/tmp",
		"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local/bin", "opt"}
}

// merged are the links of a system whose programs all lie below /usr.
func merged() map[string]string {
	return map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "/run"}
}

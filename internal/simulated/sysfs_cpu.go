package simulated

import (
	"fmt"
	"math/big"
	"path"
	"strings"
)

// cpusOf lists the hardware threads of a NUMA node: Linux numbers the first
// thread of every core before the second threads.
func cpusOf(node int) []int {
	var cpus []int
	for first := node * coresPerNode; first < threads; first += numaNodes * coresPerNode {
		for core := range coresPerNode {
			cpus = append(cpus, first+core)
		}
	}
	return cpus
}

func cpuList(node int) string {
	first := node * coresPerNode
	second := first + numaNodes*coresPerNode
	return fmt.Sprintf("%d-%d,%d-%d", first, first+coresPerNode-1, second, second+coresPerNode-1)
}

// cpuMask writes the threads of a node as the kernel does: words of 32 bits,
// the highest first.
func cpuMask(node int) string {
	mask := new(big.Int)
	for _, cpu := range cpusOf(node) {
		mask.SetBit(mask, cpu, 1)
	}
	return strings.Join(chunks(fmt.Sprintf("%0*x", threads/4, mask), 8), ",")
}

func (s *sysfs) addSystem() {
	const cpus, nodes = "devices/system/cpu", "devices/system/node"
	for _, name := range []string{"online", "possible", "present"} {
		s.file(path.Join(cpus, name), fmt.Sprintf("0-%d", threads-1))
	}
	for _, name := range []string{"online", "possible", "has_cpu", "has_memory"} {
		s.file(path.Join(nodes, name), fmt.Sprintf("0-%d", numaNodes-1))
	}
	for node := range numaNodes {
		dir := path.Join(nodes, fmt.Sprintf("node%d", node))
		s.file(path.Join(dir, "cpulist"), cpuList(node))
		s.file(path.Join(dir, "cpumap"), cpuMask(node))
		s.file(path.Join(dir, "distance"), []string{"10 21", "21 10"}[node])
		s.file(path.Join(dir, "meminfo"), fmt.Sprintf("Node %d MemTotal:       1056475808 kB", node))
		for i, cpu := range cpusOf(node) {
			s.addCPU(path.Join(cpus, fmt.Sprintf("cpu%d", cpu)), dir, node, i%coresPerNode)
		}
	}
}

func (s *sysfs) addCPU(dir, nodeDir string, node, core int) {
	first := node*coresPerNode + core
	s.file(path.Join(dir, "topology/physical_package_id"), fmt.Sprint(node))
	s.file(path.Join(dir, "topology/core_id"), fmt.Sprint(core))
	s.file(path.Join(dir, "topology/thread_siblings_list"), fmt.Sprintf("%d,%d", first, first+numaNodes*coresPerNode))
	s.link(path.Join(dir, path.Base(nodeDir)), nodeDir)
	s.link(path.Join(nodeDir, path.Base(dir)), dir)
}

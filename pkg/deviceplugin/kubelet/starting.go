package kubelet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// podLogs is kubelet's folder of logs, unless its configuration has another
// podLogsDir. Kubelet makes a folder <namespace>_<name>_<uid> in it before it starts
// a pod's sandbox (BuildPodLogsDirectory in pkg/kubelet/kuberuntime/helpers.go), and
// keeps it until the pod is deleted.
const podLogs = "/var/log/pods"

// starting returns those of the pods that may be among the ones that kubelet looks
// after. A pod that waits for volumes, images, claims or the network has devices and
// may have no process yet, and kubelet's answer has names alone. The pod of a UID
// with logs is looked after if its name is in the answer. One without logs, and with
// a folder of its own, may be any of the answer that was not started. One without
// either may be if these are more than there are such folders: kubelet makes them
// once the network is ready. Without this process's own pod in its answer kubelet has
// not heard of pods yet, or of static ones alone, since the API server is away.
func (k *Kubelet) starting(uids []types.UID, answer *podresources.ListPodResourcesResponse) ([]types.UID, error) {
	if len(uids) == 0 || len(answer.GetPodResources()) == 0 {
		return uids, nil
	}
	started, unstarted, err := k.pods()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, name := range started {
		names[name] = true
	}
	listed, waiting := map[string]bool{}, 0
	for _, pod := range answer.GetPodResources() {
		name := pod.GetNamespace() + "/" + pod.GetName()
		listed[name] = true
		if !names[name] {
			waiting++
		}
	}
	if own, is := started[k.self]; is && !listed[own] {
		return uids, nil
	}
	return slices.DeleteFunc(slices.Clone(uids), func(uid types.UID) bool {
		if name, is := started[uid]; is {
			return !listed[name]
		}
		if unstarted[uid] {
			return waiting == 0
		}
		return waiting <= len(unstarted)
	}), nil
}

// pods returns the names of the pods that have logs, and the pods that have none, of
// those that are not removed: kubelet removes the folder of a pod, and a while later
// that of its logs.
func (k *Kubelet) pods() (started map[types.UID]string, unstarted map[types.UID]bool, err error) {
	folders, err := k.list(k.root, "pods")
	if err != nil {
		return nil, nil, err
	}
	logs, err := k.list(podLogs)
	if err != nil {
		return nil, nil, err
	}
	started, unstarted = map[types.UID]string{}, map[types.UID]bool{}
	for _, uid := range folders {
		unstarted[types.UID(uid)] = true
	}
	for _, folder := range logs {
		parts := strings.Split(folder, "_")
		if len(parts) != 3 || !unstarted[types.UID(parts[2])] {
			continue
		}
		uid := types.UID(parts[2])
		started[uid] = parts[0] + "/" + parts[1]
		delete(unstarted, uid)
	}
	return started, unstarted, nil
}

// list returns the names in a folder of the host. One that is missing is empty.
func (k *Kubelet) list(elements ...string) (names []string, err error) {
	dir, err := k.path(elements...)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look which pods kubelet has started: %w", err)
	}
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}

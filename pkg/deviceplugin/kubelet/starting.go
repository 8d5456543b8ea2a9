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
// after. A pod that waits for volumes, images or the network has devices and may
// have no process yet, and kubelet's answer has names alone. The pod of a UID with
// logs is looked after if its name is in the answer. One that has no logs was never
// started: it may be any pod of the answer that has none either. Without any pod in
// its answer, where at least this one should be, kubelet has not heard of pods yet.
func (k *Kubelet) starting(uids []types.UID, answer *podresources.ListPodResourcesResponse) ([]types.UID, error) {
	if len(uids) == 0 || len(answer.GetPodResources()) == 0 {
		return uids, nil
	}
	names, err := k.loggedPods()
	if err != nil {
		return nil, err
	}
	started := map[string]bool{}
	for _, name := range names {
		started[name] = true
	}
	listed, waiting := map[string]bool{}, false
	for _, pod := range answer.GetPodResources() {
		name := pod.GetNamespace() + "/" + pod.GetName()
		listed[name] = true
		waiting = waiting || !started[name]
	}
	return slices.DeleteFunc(slices.Clone(uids), func(uid types.UID) bool {
		if name, logged := names[uid]; logged {
			return !listed[name]
		}
		return !waiting
	}), nil
}

// loggedPods returns the names of the pods that have logs and are not removed yet:
// kubelet removes the folder of the pod, and a moment later that of its logs.
func (k *Kubelet) loggedPods() (map[types.UID]string, error) {
	dir, err := k.path(podLogs)
	if err != nil {
		return nil, err
	}
	folders, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look which pods have logs: %w", err)
	}
	names := map[types.UID]string{}
	for _, folder := range folders {
		parts := strings.Split(folder.Name(), "_")
		if len(parts) != 3 {
			continue
		}
		path, err := k.path(k.root, "pods", parts[2])
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err == nil {
			names[types.UID(parts[2])] = parts[0] + "/" + parts[1]
		}
	}
	return names, nil
}

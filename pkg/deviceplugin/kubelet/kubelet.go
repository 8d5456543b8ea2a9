package kubelet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/apimachinery/pkg/types"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

const (
	// answerWithin bounds one question. Kubelet answers from memory.
	answerWithin = 5 * time.Second
	// maxAnswer is what kubelet itself allows of an answer, in bytes.
	maxAnswer = 16 << 20
	// replicaMark stands between an ID and the number of a replica where NVIDIA's
	// device plugin gives one GPU to several containers.
	replicaMark = "::"
)

// Kubelet is the kubelet of this node.
type Kubelet struct {
	socket, checkpoint string
}

// New returns the kubelet whose pod-resources API is served on a socket.
// Checkpoint is the file in which its device manager keeps what it has given.
func New(socket, checkpoint string) *Kubelet {
	return &Kubelet{socket: socket, checkpoint: checkpoint}
}

// Use is who uses a device.
type Use struct {
	// Pods are namespace/name.
	Pods []string
	// Resources are what they have it as.
	Resources []string
	// UIDs are those of the pods, as far as kubelet's checkpoint has them: its API
	// does not. They are for telling whether processes of a pod are left. Without
	// Pods they are of pods that are over, or of those that the API leaves out.
	UIDs []types.UID
}

// Uses returns who uses devices that device plugins gave out, whichever plugin
// that was, by the device's ID. What is not in the answer is used by nobody.
//
// The API leaves out what only init containers have (List in
// pkg/kubelet/apis/podresources/server_v1.go of Kubernetes 1.37), and all pods of
// which a kubelet that has just started has not heard yet. The checkpoint has
// them, and those of pods that are over too, until kubelet writes it again.
func (k *Kubelet) Uses(ctx context.Context) (uses map[string]Use, err error) {
	err = k.ask(ctx, func(ctx context.Context, api podresources.PodResourcesListerClient) error {
		answer, err := api.List(ctx, &podresources.ListPodResourcesRequest{})
		if err != nil {
			return fmt.Errorf("ask kubelet which pods have which devices: %w", err)
		}
		uses = usesIn(answer)
		return nil
	})
	if err != nil {
		return nil, err
	}
	uids, err := k.uids()
	if err != nil {
		return nil, err
	}
	for id := range uids {
		use := uses[id]
		use.UIDs = uids[id]
		uses[id] = use
	}
	return uses, nil
}

func (k *Kubelet) ask(ctx context.Context, question func(context.Context, podresources.PodResourcesListerClient) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+k.socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return fmt.Errorf("open %s: %w", k.socket, err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return question(ctx, podresources.NewPodResourcesListerClient(conn))
}

func usesIn(answer *podresources.ListPodResourcesResponse) map[string]Use {
	uses := map[string]Use{}
	for _, pod := range answer.GetPodResources() {
		name := pod.GetNamespace() + "/" + pod.GetName()
		for _, container := range pod.GetContainers() {
			for _, d := range container.GetDevices() {
				for _, id := range d.GetDeviceIds() {
					id, _, _ = strings.Cut(id, replicaMark)
					use := uses[id]
					use.Pods, use.Resources = addMissing(use.Pods, name), addMissing(use.Resources, d.GetResourceName())
					uses[id] = use
				}
			}
		}
	}
	return uses
}

func addMissing(list []string, text string) []string {
	if slices.Contains(list, text) {
		return list
	}
	return append(list, text)
}

// checkpoint is what is read of kubelet's file, see checkpointData in
// pkg/kubelet/cm/devicemanager/checkpoint of Kubernetes 1.37; it has been the
// same since 1.20.
type checkpoint struct {
	Data struct {
		PodDeviceEntries []struct {
			PodUID    types.UID
			DeviceIDs map[string][]string
		}
	}
}

// uids returns the pods in kubelet's checkpoint by the devices that they have.
// Without a checkpoint kubelet has given nothing.
func (k *Kubelet) uids() (map[string][]types.UID, error) {
	data, err := os.ReadFile(k.checkpoint)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read which pods have which devices: %w", err)
	}
	var file checkpoint
	if err := json.Unmarshal(data, &file); err != nil {
		return nil, fmt.Errorf("read which pods have which devices from %s: %w", k.checkpoint, err)
	}
	uids := map[string][]types.UID{}
	for _, entry := range file.Data.PodDeviceEntries {
		for _, ids := range entry.DeviceIDs {
			for _, id := range ids {
				id, _, _ = strings.Cut(id, replicaMark)
				if !slices.Contains(uids[id], entry.PodUID) {
					uids[id] = append(uids[id], entry.PodUID)
				}
			}
		}
	}
	return uids, nil
}

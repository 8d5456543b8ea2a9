package kubelet

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	securejoin "github.com/cyphar/filepath-securejoin"
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
)

// ErrIncomplete tells that there may be pods with devices that an answer leaves out.
var ErrIncomplete = errors.New("kubelet's checkpoint does not say which init containers have devices")

// Kubelet is the kubelet of this node.
type Kubelet struct {
	host, root string
	self       types.UID
}

// New returns the kubelet with the folder root on a host whose "/" is seen at
// hostRoot. Links of the host may lead anywhere on it. Self is the pod that this
// process runs in.
func New(hostRoot, root string, self types.UID) *Kubelet { return &Kubelet{hostRoot, root, self} }

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
	// Starting are those of UIDs whose pods may be yet to run, without Pods to tell.
	Starting []types.UID
}

// Uses returns who uses devices that device plugins gave out, whichever plugin
// that was, by the device's ID. What is not in the answer is used by nobody, unless
// there is an [ErrIncomplete], too.
//
// The API leaves out what only init containers have (List in
// pkg/kubelet/apis/podresources/server_v1.go of Kubernetes 1.37), and all pods of
// which a kubelet that has just started has not heard yet. The checkpoint has
// them, and those of pods that are over too, until kubelet writes it again.
func (k *Kubelet) Uses(ctx context.Context) (uses map[string]Use, err error) {
	var answer *podresources.ListPodResourcesResponse
	err = k.ask(ctx, func(ctx context.Context, api podresources.PodResourcesListerClient) (err error) {
		answer, err = api.List(ctx, &podresources.ListPodResourcesRequest{})
		if err != nil {
			return fmt.Errorf("ask kubelet which pods have which devices: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	uses = usesIn(answer)
	uids, err := k.uids()
	if err != nil {
		return uses, fmt.Errorf("%w: %w", ErrIncomplete, err)
	}
	var unnamed []types.UID
	for id := range uids {
		use := uses[id]
		use.UIDs = uids[id]
		uses[id] = use
		if len(use.Pods) == 0 {
			unnamed = append(unnamed, use.UIDs...)
		}
	}
	starting, err := k.starting(unnamed, answer)
	if err != nil {
		return nil, err
	}
	for id, use := range uses {
		if len(use.Pods) == 0 {
			use.Starting = slices.DeleteFunc(slices.Clone(use.UIDs), func(uid types.UID) bool { return !slices.Contains(starting, uid) })
			uses[id] = use
		}
	}
	return uses, nil
}

// path returns where a path of the host is seen.
func (k *Kubelet) path(elements ...string) (string, error) {
	path := filepath.Join(elements...)
	seen, err := securejoin.SecureJoin(k.host, path)
	if err != nil {
		return "", fmt.Errorf("follow the path %s on the host: %w", path, err)
	}
	return seen, nil
}

func (k *Kubelet) ask(ctx context.Context, question func(context.Context, podresources.PodResourcesListerClient) error) (err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	socket, err := k.path(k.root, "pod-resources", "kubelet.sock")
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return fmt.Errorf("open %s: %w", socket, err)
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
					id = deviceID(id)
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

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/api/v1alpha1"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/device"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/deviceplugin"
)

const (
	// labelsEvery is about how often the node's labels are asked for.
	labelsEvery = 30 * time.Second
	// labelsWithin bounds one question.
	labelsWithin = 5 * time.Second
)

// nodeSelector tells whether the node has the labels that the device plugin's
// configuration asks for.
type nodeSelector struct {
	client   kubernetes.Interface
	node     string
	selector map[string]string
	// kinds are those of the configuration, and serves those that are served.
	kinds, serves []device.Kind
}

// newNodeSelector finds out which of the configured kinds this node serves. Where
// the API server does not answer, it is those that it served before.
func newNodeSelector(ctx context.Context, client kubernetes.Interface, node, dataDir string, config v1alpha1.DevicePluginConfig) *nodeSelector {
	s := &nodeSelector{client: client, node: node, selector: config.NodeSelector}
	for _, kind := range config.Kinds {
		s.kinds = append(s.kinds, device.Kind(kind))
	}
	wanted, err := s.wanted(ctx)
	if err == nil {
		s.serves = wanted
		s.note(ctx, dataDir)
		return s
	}
	before, unknown := deviceplugin.Served(dataDir)
	for _, kind := range s.kinds {
		if slices.Contains(before, kind) {
			s.serves = append(s.serves, kind)
		}
	}
	klog.FromContext(ctx).Error(errors.Join(err, unknown), "The device plugin serves what it did before", "kinds", s.serves)
	return s
}

// note writes down what the node serves, for a start at which the API server does not
// answer. A disk that is full is no hindrance to this one.
func (s *nodeSelector) note(ctx context.Context, dataDir string) {
	var err error
	if len(s.kinds) == 0 {
		err = deviceplugin.ForgetServed(dataDir)
	} else {
		err = deviceplugin.NoteServed(ctx, dataDir, s.serves)
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Should the API server not answer at the next start, the device plugin may serve other kinds than now", "kinds", s.serves)
	}
}

// wanted returns the kinds that the node is to serve by its labels.
func (s *nodeSelector) wanted(ctx context.Context) ([]device.Kind, error) {
	if len(s.selector) == 0 || len(s.kinds) == 0 {
		return s.kinds, nil
	}
	ctx, cancel := context.WithTimeout(ctx, labelsWithin)
	defer cancel()
	node, err := s.client.CoreV1().Nodes().Get(ctx, s.node, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, fmt.Errorf("ask for the labels of node %s, which the configuration's devicePlugin.nodeSelector needs: %w", s.node, err)
	}
	if !labels.SelectorFromSet(s.selector).Matches(labels.Set(node.Labels)) {
		return nil, nil
	}
	return s.kinds, nil
}

// follow returns an error when the labels say otherwise than at the start: a new
// process then serves what they say. It returns nil when ctx is done.
func (s *nodeSelector) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	changed := errors.New("the node's labels say otherwise than before who serves its devices: the plugin starts again")
	if len(s.selector) == 0 || len(s.kinds) == 0 {
		<-ctx.Done()
		return nil
	}
	wait.JitterUntilWithContext(ctx, func(ctx context.Context) {
		if wanted, err := s.wanted(ctx); err == nil && !slices.Equal(wanted, s.serves) {
			cancel(changed)
		}
	}, labelsEvery, 0.2, true)
	if errors.Is(context.Cause(ctx), changed) {
		return changed
	}
	return nil
}

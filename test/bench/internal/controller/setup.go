package controller

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/plugin"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/pods"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/bench/internal/published"
	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

const (
	// deployed is the name of the controller's Deployment and service account.
	deployed = "eks-hybrid-dra-controller"
	// webhook is the name of its webhook's configuration.
	webhook = "eks-hybrid-dra"

	claimNamespace, raceNamespace = "bench-claims", "bench-race"
)

// setUp prepares all that lasts for the whole benchmark. The function that it
// returns brings the deployed controller back.
func (s *Suite) setUp(ctx context.Context) (func() error, error) {
	config := rest.CopyConfig(s.Cluster.Rest)
	// Claims come as fast as the API server takes them.
	config.QPS = -1
	config.ContentType, config.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	var err error
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	machine, err := published.Read(ctx, s.Cluster)
	if err != nil {
		return nil, err
	}
	s.fleet = newFleet(s.client, machine)
	s.report.Notes = append(s.report.Notes, machine.String())
	if err := s.asDeployed(); err != nil {
		return nil, err
	}
	// An earlier run that was cut off may have left some.
	if err := s.remove(ctx); err != nil {
		return nil, err
	}
	for _, namespace := range []string{claimNamespace, raceNamespace} {
		if err := pods.NewNamespace(ctx, s.client, namespace); err != nil {
			return nil, err
		}
	}
	restore, err := s.replaceDeployed(ctx)
	if err != nil {
		return nil, err
	}
	s.hearts = published.NewHearts(ctx, s.client)
	return restore, nil
}

// asDeployed writes a kubeconfig that may do no more than the deployed
// controller.
func (s *Suite) asDeployed() error {
	config, err := (&clientcmd.ClientConfigLoadingRules{ExplicitPath: s.Cluster.Kubeconfig}).Load()
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	for _, user := range config.AuthInfos {
		user.Impersonate = "system:serviceaccount:" + harness.Namespace + ":" + deployed
		user.ImpersonateGroups = []string{"system:serviceaccounts", "system:serviceaccounts:" + harness.Namespace, "system:authenticated"}
	}
	s.kubeconfig = filepath.Join(s.Work, "controller.kubeconfig")
	if err := clientcmd.WriteToFile(*config, s.kubeconfig); err != nil {
		return fmt.Errorf("write the controller's kubeconfig: %w", err)
	}
	return nil
}

// replaceDeployed ends the controller that is deployed, and takes its webhook
// away, which nobody would answer.
func (s *Suite) replaceDeployed(ctx context.Context) (func() error, error) {
	webhooks := s.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	hook, err := webhooks.Get(ctx, webhook, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("look for the webhook: %w", err)
	}
	if err := s.scale(ctx, 0); err != nil {
		return nil, err
	}
	if err := webhooks.Delete(ctx, webhook, metav1.DeleteOptions{}); err != nil {
		return nil, fmt.Errorf("take the webhook away: %w", err)
	}
	restore := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		hook.ObjectMeta = metav1.ObjectMeta{Name: hook.Name, Labels: hook.Labels, Annotations: hook.Annotations}
		if _, err := webhooks.Create(ctx, hook, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("bring the webhook back: %w", err)
		}
		return s.scale(ctx, 2)
	}
	err = wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		left, err := s.client.CoreV1().Pods(harness.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=controller"})
		return err == nil && len(left.Items) == 0, err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("wait for the end of the deployed controller: %w", err), restore())
	}
	return restore, nil
}

func (s *Suite) scale(ctx context.Context, replicas int32) error {
	deployments := s.client.AppsV1().Deployments(harness.Namespace)
	scale, err := deployments.GetScale(ctx, deployed, metav1.GetOptions{})
	if err == nil {
		scale.Spec.Replicas = replicas
		_, err = deployments.UpdateScale(ctx, deployed, scale, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("scale deployment %s to %d: %w", deployed, replicas, err)
	}
	return nil
}

// start starts the controller and returns when it leads and has read everything.
func (s *Suite) start(ctx context.Context) error {
	var err error
	s.process, err = plugin.Controller(ctx, s.Image, filepath.Join(s.Work, "programs"), filepath.Join(s.Work, "controller.log"),
		"--kubeconfig="+s.kubeconfig, "--namespace="+harness.Namespace, "--http-address=127.0.0.1:0", "--enable-webhook=false",
		// Nobody uses the claims.
		"--unused-after=24h")
	if err != nil {
		return err
	}
	leases := s.client.CoordinationV1().Leases(harness.Namespace)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err = wait.PollUntilContextCancel(ctx, 200*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		select {
		case <-s.process.Ended():
			return false, s.process.Failure()
		default:
		}
		lease, err := leases.Get(ctx, deployed, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != "" &&
			lease.Spec.RenewTime != nil && lease.Spec.RenewTime.After(s.process.Started), err
	})
	if err != nil {
		return fmt.Errorf("wait until the controller leads: %w", err)
	}
	return nil
}

func (s *Suite) stop() error {
	if s.process == nil {
		return nil
	}
	process := s.process
	s.process = nil
	return process.Stop()
}

// cleanUp also works after ctx is done.
func (s *Suite) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if s.seen != nil {
		s.seen.stop()
	}
	return errors.Join(s.stop(), s.hearts.Stop(), s.remove(ctx))
}

// remove removes all that is left of a run. The controller manager lets go of the
// claims.
func (s *Suite) remove(ctx context.Context) error {
	for _, namespace := range []string{claimNamespace, raceNamespace} {
		now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
		if err := s.client.CoreV1().Pods(namespace).DeleteCollection(ctx, now, metav1.ListOptions{}); err != nil {
			return fmt.Errorf("delete the pods in %s: %w", namespace, err)
		}
		claims := s.client.ResourceV1().ResourceClaims(namespace)
		if err := claims.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
			return fmt.Errorf("delete the claims in %s: %w", namespace, err)
		}
		err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
			left, err := claims.List(ctx, metav1.ListOptions{Limit: 1})
			return err == nil && len(left.Items) == 0, err
		})
		if err != nil {
			return fmt.Errorf("wait for the end of the claims in %s: %w", namespace, err)
		}
		if err := pods.DeleteNamespace(ctx, s.client, namespace); err != nil {
			return err
		}
	}
	return published.Remove(ctx, s.client)
}

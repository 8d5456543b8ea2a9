package certificates

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// longest bounds a timer: a clock that was set should be noticed within a day.
const longest = 24 * time.Hour

// keep takes one step after the other, each time that one of the two objects
// changes or a certificate comes of age.
func (c *Certificates) keep(ctx context.Context) error {
	wake := make(chan struct{}, 1)
	poke := func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	for _, informer := range []cache.SharedIndexInformer{c.secrets, c.webhooks} {
		registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { poke() }, UpdateFunc: func(any, any) { poke() }, DeleteFunc: func(any) { poke() },
		})
		if err != nil {
			return fmt.Errorf("watch the webhook's certificate: %w", err)
		}
		defer func() {
			if err := informer.RemoveEventHandler(registration); err != nil {
				klog.FromContext(ctx).Error(err, "Cannot stop watching the webhook's certificate")
			}
		}()
	}
	var group wait.Group
	group.StartWithContext(ctx, c.webhooks.RunWithContext)
	defer group.Wait()
	if !cache.WaitForCacheSync(ctx.Done(), c.secrets.HasSynced, c.webhooks.HasSynced) {
		return nil // ctx is done
	}
	backoff := newBackoff()
	for {
		pause := backoff.Step()
		if again, err := c.step(ctx); err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Cannot keep the webhook's certificate; trying again", "after", pause)
		} else {
			backoff = newBackoff()
			pause = min(max(time.Until(again), time.Second), longest)
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-wake:
			timer.Stop()
		}
	}
}

func newBackoff() *wait.Backoff {
	return &wait.Backoff{Duration: time.Second, Factor: 2, Jitter: .1, Steps: 10, Cap: 5 * time.Minute}
}

// step does what is to be done now, and returns when to look again.
func (c *Certificates) step(ctx context.Context) (time.Time, error) {
	secret, err := c.secret()
	if err != nil {
		return time.Time{}, err
	}
	webhook := c.webhook()
	now := time.Now()
	plan, err := c.next(secret.Data, func(p *pair) bool { return webhook == nil || trusted(webhook, p) }, now)
	if err != nil {
		return time.Time{}, err
	}
	if plan.secret != nil {
		return now.Add(longest), c.write(ctx, secret, plan) // its news wakes us
	}
	return plan.again, c.inject(ctx, webhook, plan.bundle)
}

func (c *Certificates) secret() (*corev1.Secret, error) {
	object, exists, err := c.secrets.GetStore().GetByKey(c.options.Namespace + "/" + c.options.Secret)
	if err != nil {
		return nil, fmt.Errorf("look up the webhook's Secret: %w", err)
	}
	secret, ok := object.(*corev1.Secret)
	if !exists || !ok {
		return nil, fmt.Errorf("the Secret %s/%s for the webhook's certificate is not there: apply the manifests or the chart again", c.options.Namespace, c.options.Secret)
	}
	return secret, nil
}

// webhook returns the configuration, or nil if there is none.
func (c *Certificates) webhook() *admissionv1.ValidatingWebhookConfiguration {
	object, _, err := c.webhooks.GetStore().GetByKey(c.options.Webhook)
	if err != nil {
		return nil // only odd keys are errors
	}
	webhook, _ := object.(*admissionv1.ValidatingWebhookConfiguration)
	return webhook
}

func trusted(webhook *admissionv1.ValidatingWebhookConfiguration, p *pair) bool {
	for _, w := range webhook.Webhooks {
		if !trusts(w.ClientConfig.CABundle, p) {
			return false
		}
	}
	return true
}

// write replaces what the Secret holds. A conflict means that another replica
// was faster, and is no error.
func (c *Certificates) write(ctx context.Context, secret *corev1.Secret, plan plan) error {
	changed := secret.DeepCopy()
	changed.Data = plan.secret
	_, err := c.client.CoreV1().Secrets(c.options.Namespace).Update(ctx, changed, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write the webhook's certificate into Secret %s: %w", klog.KObj(secret), err)
	}
	klog.FromContext(ctx).Info("Wrote the webhook's certificate", "secret", klog.KObj(secret), "why", plan.why)
	return nil
}

// inject makes the API server trust the bundle. Only that field is written: the
// rest of the configuration is the admin's, and may have fields that this
// program does not know.
func (c *Certificates) inject(ctx context.Context, webhook *admissionv1.ValidatingWebhookConfiguration, bundle []byte) error {
	if webhook == nil {
		klog.FromContext(ctx).Info("The webhook's configuration is not there: nobody is told to trust the certificate", "webhookConfiguration", c.options.Webhook)
		return nil
	}
	var entries []map[string]any
	for _, w := range webhook.Webhooks {
		if !bytes.Equal(w.ClientConfig.CABundle, bundle) {
			entries = append(entries, map[string]any{"name": w.Name, "clientConfig": map[string]any{"caBundle": bundle}})
		}
	}
	if len(entries) == 0 {
		return nil
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": webhook.ResourceVersion},
		"webhooks": entries,
	})
	if err != nil {
		return fmt.Errorf("encode the patch of ValidatingWebhookConfiguration %s: %w", webhook.Name, err)
	}
	_, err = c.client.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch(ctx, webhook.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // its news wakes us
	}
	if err != nil {
		return fmt.Errorf("write what to trust into ValidatingWebhookConfiguration %s: %w", webhook.Name, err)
	}
	klog.FromContext(ctx).Info("The API server is told to trust the webhook's certificate", "webhookConfiguration", webhook.Name)
	return nil
}

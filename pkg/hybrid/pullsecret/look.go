package pullsecret

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// look brings one namespace up to date.
func (r *round) look(ctx context.Context, namespace string) error {
	config, chosen := r.current()
	item, there, err := r.namespaces.GetStore().GetByKey(namespace)
	if err != nil {
		return fmt.Errorf("look for namespace %s: %w", namespace, err)
	}
	n, ok := item.(*corev1.Namespace)
	if !there || !ok || n.DeletionTimestamp != nil || namespace == r.Namespace {
		r.Metrics.set(namespace, state{})
		r.teller.forget(namespace)
		return nil
	}
	for _, name := range r.names {
		copied, err := r.secret(namespace, name)
		if err != nil {
			return err
		}
		if name == config.Name && chosen(n) {
			if err := r.keep(ctx, n, name, copied); err != nil {
				return err
			}
			continue
		}
		if copied != nil && isCopy(copied, r.Namespace) {
			if err := remove(ctx, r.Client, copied); err != nil {
				return err
			}
			klog.FromContext(ctx).Info("Removed the copy of a pull secret", "secret", klog.KObj(copied))
		}
		if name == config.Name {
			r.fine(namespace, state{})
		}
	}
	if config.Name == "" {
		r.fine(namespace, state{})
	}
	return nil
}

// keep has a namespace have its copy.
func (r *round) keep(ctx context.Context, n *corev1.Namespace, name string, copied *corev1.Secret) error {
	if copied != nil && !isCopy(copied, r.Namespace) {
		r.tell(ctx, n.Name, ReasonTaken, fmt.Errorf("the Secret %s/%s is there and is no copy of %s/%s: it is left alone; delete or rename it to have the copy", n.Name, name, r.Namespace, name))
		return nil
	}
	source, err := r.secret(r.Namespace, name)
	if err != nil {
		return err
	}
	if err := usable(source, r.Namespace, name); err != nil {
		r.tell(ctx, n.Name, ReasonSource, err)
		return nil
	}
	switch {
	case copied == nil:
		err = create(ctx, r.Client, n.Name, source)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return nil
		}
	case !upToDate(copied, source):
		err = update(ctx, r.Client, copied, source)
	default:
		r.fine(n.Name, state{copied: true})
		return nil
	}
	if err != nil {
		return err
	}
	klog.FromContext(ctx).Info("Copied a pull secret", "secret", klog.KRef(n.Name, name))
	r.fine(n.Name, state{copied: true})
	return nil
}

// secret returns nil without an error if there is none.
func (r *round) secret(namespace, name string) (*corev1.Secret, error) {
	item, there, err := r.secrets[name].GetStore().GetByKey(namespace + "/" + name)
	if err != nil {
		return nil, fmt.Errorf("look for Secret %s/%s: %w", namespace, name, err)
	}
	secret, ok := item.(*corev1.Secret)
	if !there || !ok {
		return nil, nil //nolint:nilnil // none is no error
	}
	return secret, nil
}

func (r *round) fine(namespace string, s state) {
	r.Metrics.set(namespace, s)
	r.teller.forget(namespace)
}

func (r *round) tell(ctx context.Context, namespace string, reason Reason, problem error) {
	r.Metrics.set(namespace, state{problem: reason})
	r.teller.tell(ctx, r.about(namespace, reason), namespace, reason, problem.Error())
}

// about is the object of which an event tells. That there is nothing to copy is told
// once, where it should be.
func (r *round) about(namespace string, reason Reason) *corev1.ObjectReference {
	if reason == ReasonSource {
		namespace = r.Namespace
	}
	config, _ := r.current()
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Secret", Namespace: namespace, Name: config.Name}
}

// repeatAfter is how long a problem lasts before it is told again: the API server
// forgets events after an hour.
const repeatAfter = 50 * time.Minute

// teller tells of problems when they begin, and again while they last.
type teller struct {
	events record.EventRecorder
	last   map[string]told
}

type told struct {
	reason Reason
	text   string
	at     time.Time
}

func newTeller(events record.EventRecorder) *teller {
	return &teller{events: events, last: map[string]told{}}
}

func (t *teller) tell(ctx context.Context, about *corev1.ObjectReference, key string, reason Reason, text string) {
	before, ok := t.last[key]
	if ok && before.reason == reason && (before.text == text || reason == ReasonFailed) && time.Since(before.at) < repeatAfter {
		return
	}
	t.last[key] = told{reason: reason, text: text, at: time.Now()}
	klog.FromContext(ctx).Info("A namespace lacks its pull secret", "reason", reason, "message", text)
	t.events.Event(about, corev1.EventTypeWarning, string(reason), text)
}

func (t *teller) forget(key string) { delete(t.last, key) }

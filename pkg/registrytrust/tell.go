package registrytrust

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/pkg/registrytrust/containerdconfig"
)

// repeatAfter is how long a problem lasts before it is told again: the API
// server forgets events after an hour.
const repeatAfter = 50 * time.Minute

// maxMessage is how long an event's message may be, in bytes, with room for
// the sign that it was cut.
const maxMessage = 1000

// Reasons of events on the node.
const (
	eventTrusted    = "RegistryTrusted"
	eventNotTrusted = "RegistryNotTrusted"
	eventProblem    = "RegistryTrustProblem"
)

// teller writes logs and events when something changes, and again while a
// problem lasts.
type teller struct {
	node   *corev1.ObjectReference
	events record.EventRecorder
	last   map[string]told
	found  containerdconfig.Finding
}

// told is what was said about one registry, and when.
type told struct {
	text string
	at   time.Time
}

func newTeller(node string, events record.EventRecorder) *teller {
	return &teller{
		// kubelet's events carry the node's name for its UID, too; describe looks
		// for both.
		node:   &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: node, UID: types.UID(node)},
		events: events,
		last:   map[string]told{},
	}
}

func (t *teller) configPath(found containerdconfig.Finding) { t.found = found }

func (t *teller) tell(ctx context.Context, report Report) {
	log := klog.FromContext(ctx)
	if t.changed("config_path", t.found.Message, false) {
		log.Info("Looked at containerd's configuration", "configPath", t.found.State, "message", t.found.Message)
	}
	current := map[string]bool{"": true, "config_path": true}
	t.problems(ctx, "", eventProblem, report.Problems)
	for _, r := range report.Registries {
		current[r.Host] = true
		switch {
		case r.Trusted && len(r.Problems) > 0:
			t.problems(ctx, r.Host, eventProblem, r.Problems)
		case len(r.Problems) > 0:
			t.problems(ctx, r.Host, eventNotTrusted, r.Problems)
		case r.Trusted && t.changed(r.Host, eventTrusted, false):
			log.Info("The registry's certificate is trusted", "registry", r.Host, "certificateExpires", r.CertificateExpires)
			t.events.Eventf(t.node, corev1.EventTypeNormal, eventTrusted, "%s: its certificate is trusted on this node", r.Host)
		}
	}
	for host := range t.last {
		if !current[host] {
			delete(t.last, host)
		}
	}
}

func (t *teller) problems(ctx context.Context, host, reason string, problems []*Problem) {
	text, same := make([]string, 0, len(problems)), []string{reason}
	for _, p := range problems {
		text = append(text, p.Message)
		same = append(same, string(p.Reason))
		if !volatile(p.Reason) {
			same = append(same, p.Message)
		}
	}
	if !t.changed(host, strings.Join(same, "\n"), true) || len(problems) == 0 {
		return
	}
	for _, p := range problems {
		klog.FromContext(ctx).Error(p, "A registry's certificates cannot be used as configured", "registry", host, "reason", p.Reason)
	}
	message := strings.Join(reasonsOf(problems), ", ") + ": " + strings.Join(text, "; ")
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	t.events.Event(t.node, corev1.EventTypeWarning, reason, message)
}

// volatile says whether a problem's message differs from try to try, by a time
// or a port, while the problem is the same.
func volatile(reason Reason) bool {
	switch reason {
	case ReasonUnreachable, ReasonHandshakeFailed, ReasonCertificateExpired, ReasonWriteFailed:
		return true
	}
	return false
}

// changed says whether the text is to be told: for the first time, or again.
func (t *teller) changed(about, text string, repeat bool) bool {
	before, ok := t.last[about]
	if ok && before.text == text && (!repeat || time.Since(before.at) < repeatAfter) {
		return false
	}
	t.last[about] = told{text: text, at: time.Now()}
	return true
}

package privileges

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/harness"
)

// request is one that an account of the release made.
type request struct {
	account, verb                    string
	group, resource, namespace, name string
	code                             int32
	message                          string
	// unauthorized tells that no role known to the API server allowed it.
	unauthorized bool
}

func (q request) String() string {
	return fmt.Sprintf("%s: %s %s %s %s/%s: %d %s", q.account, q.verb, q.group, q.resource, q.namespace, q.name, q.code, q.message)
}

// refused tells whether the account may not do what it asked for.
func (q request) refused() bool { return q.code == http.StatusForbidden }

// served tells whether the account may do what it asked for, and that counted.
// That something is not there is an answer, too.
func (q request) served() bool {
	return q.code >= 200 && q.code < 300 || q.verb == "get" && q.code == http.StatusNotFound
}

// auditLog reads the API server's audit log on from where it was left.
type auditLog struct {
	cluster *harness.Cluster
	read    int
}

// news returns what was asked since the last call.
func (l *auditLog) news(ctx context.Context) ([]request, error) {
	text, err := l.cluster.AuditLog(ctx)
	if err != nil {
		return nil, err
	}
	if len(text) < l.read {
		return nil, fmt.Errorf("the audit log has become shorter: %d bytes, it had %d", len(text), l.read)
	}
	whole := strings.LastIndexByte(text, '\n') + 1
	if whole <= l.read {
		return nil, nil
	}
	var out []request
	for line := range strings.Lines(text[l.read:whole]) {
		var event auditEvent
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			return nil, fmt.Errorf("a line of the audit log: %w: %s", err, line)
		}
		if q, ok := requestOf(&event); ok {
			out = append(out, q)
		}
	}
	l.read = whole
	return out, nil
}

// auditEvent is what is looked at of a line of the audit log.
type auditEvent struct {
	Verb string
	User struct{ Username string }
	// ObjectRef is nil where no resource was asked for.
	ObjectRef *struct{ APIGroup, Resource, Subresource, Namespace, Name string }
	// ResponseStatus is nil before there is an answer.
	ResponseStatus *struct {
		Code    int32
		Message string
	}
	Annotations map[string]string
}

// requestOf leaves out what everyone may ask, such as which groups there are.
func requestOf(event *auditEvent) (request, bool) {
	account, ours := strings.CutPrefix(event.User.Username, "system:serviceaccount:"+harness.Namespace+":")
	if !ours || event.ObjectRef == nil || event.ResponseStatus == nil {
		return request{}, false
	}
	q := request{
		account: strings.TrimPrefix(account, release+"-"), verb: event.Verb,
		group: event.ObjectRef.APIGroup, resource: event.ObjectRef.Resource,
		namespace: event.ObjectRef.Namespace, name: event.ObjectRef.Name,
		code: event.ResponseStatus.Code, message: event.ResponseStatus.Message,
		unauthorized: event.Annotations["authorization.k8s.io/decision"] == "forbid",
	}
	if sub := event.ObjectRef.Subresource; sub != "" {
		q.resource += "/" + sub
	}
	return q, true
}

package privileges

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
)

// The controller, with everything that the chart can switch on, asks the API server
// for nothing but the renewal of its lease, also while a claim and a gang wait that
// nothing can be done for: it polls nothing. Time passes here as the lease is renewed,
// every 2 s.
func TestADeployedControllerThatIsIdleRenewsItsLeaseOnly(t *testing.T) {
	const renewals = 8
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	t.Cleanup(func() {
		if err := world.clear(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	log := &auditLog{cluster: world.Cluster}
	if err := errors.Join(world.applyOwn(ctx, "waits.yaml"), world.applyOwn(ctx, "gang.yaml")); err != nil {
		t.Fatal(err)
	}
	err := eventually(ctx, "all is said of the claims that wait", func(ctx context.Context) error {
		list, err := world.Client.CoreV1().Events(users).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		var told []string
		for _, event := range list.Items {
			told = append(told, event.InvolvedObject.Name+" "+event.Reason)
		}
		for _, want := range []string{"waits ClaimCannotBeAllocated", "alone GangTimedOut", "alone ClaimWaiting"} {
			if !strings.Contains(strings.Join(told, ", "), want) {
				return fmt.Errorf("there is no event %q among %q", want, told)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	renewed, latest := 0, request{}
	err = wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		news, err := log.news(ctx)
		for _, q := range news {
			switch {
			case q.account != "controller":
			case q.resource != "leases":
				renewed, latest = 0, q // it may have had something to end
			case q.verb == "update":
				renewed++
			}
		}
		return renewed >= renewals, err
	})
	if err != nil {
		t.Errorf("waiting until the controller has asked for %d renewals of its lease and nothing else: %v; %d since it asked for something else: %s", renewals, err, renewed, latest)
	}
	if latest.account == "" {
		t.Error("the audit log has nothing of what the controller asked for before")
	}
}

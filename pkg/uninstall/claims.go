package uninstall

import (
	"context"
	"fmt"
	"slices"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// namedClaims is how many claims are named; of the others their number is
	// told.
	namedClaims = 20
	// page is how many claims are asked for at a time.
	page = 500
)

// InUseError says that claims have devices of the driver.
type InUseError struct {
	// Claims are lines for a person, one for each claim.
	Claims []string
}

// Error names the claims, one on each line, and the way out.
func (e *InUseError) Error() string {
	var b strings.Builder
	if len(e.Claims) == 1 {
		b.WriteString("the driver is not uninstalled: 1 claim has its devices:")
	} else {
		fmt.Fprintf(&b, "the driver is not uninstalled: %d claims have its devices:", len(e.Claims))
	}
	for _, line := range e.Claims[:min(len(e.Claims), namedClaims)] {
		b.WriteString("\n  " + line)
	}
	if more := len(e.Claims) - namedClaims; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	b.WriteString("\ndelete the pods that use them, and those claims that no pod uses, and uninstall again")
	return b.String()
}

// claimsInUse returns an [InUseError] if any claim of the cluster has a device of
// the driver.
func claimsInUse(ctx context.Context, client kubernetes.Interface, driver string) error {
	var lines []string
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := client.ResourceV1().ResourceClaims(metav1.NamespaceAll).List(ctx, options)
		if err != nil {
			return fmt.Errorf("look for claims that have devices of driver %s: %w", driver, err)
		}
		for _, claim := range list.Items {
			if line := describe(&claim, driver); line != "" {
				lines = append(lines, line)
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return &InUseError{Claims: lines}
}

// describe says what a claim has of the driver and who uses it. It is empty for
// a claim that has nothing.
func describe(claim *resourceapi.ResourceClaim, driver string) string {
	if claim.Status.Allocation == nil {
		return ""
	}
	var devices []string
	for _, result := range claim.Status.Allocation.Devices.Results {
		if result.Driver != driver {
			continue
		}
		node := strings.TrimSuffix(result.Pool, "/"+driver)
		devices = append(devices, result.Device+" on "+node)
	}
	if len(devices) == 0 {
		return ""
	}
	var users []string
	for _, consumer := range claim.Status.ReservedFor {
		users = append(users, strings.TrimSuffix(consumer.Resource, "s")+" "+consumer.Name)
	}
	use := "used by " + strings.Join(users, ", ")
	if len(users) == 0 {
		use = "allocated, not used by a pod: delete the claim, or wait"
	}
	return fmt.Sprintf("%s/%s: %s, %s", claim.Namespace, claim.Name, strings.Join(devices, ", "), use)
}

package uninstall

import (
	"context"
	"fmt"
	"strings"

	resourceapi "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// namedUsers is how many claims and pods are named; of the others their
	// number is told.
	namedUsers = 20
	// page is how many claims are asked for at a time.
	page = 500
)

// InUseError says that claims, or pods without claims, have devices of the driver.
type InUseError struct {
	// Users are lines for a person, one for each claim or pod.
	Users []string
}

// Error names the users, one on each line, and the way out.
func (e *InUseError) Error() string {
	var b strings.Builder
	if len(e.Users) == 1 {
		b.WriteString("the driver is not uninstalled: its devices are in use by 1 claim or pod:")
	} else {
		fmt.Fprintf(&b, "the driver is not uninstalled: its devices are in use by %d claims or pods:", len(e.Users))
	}
	for _, line := range e.Users[:min(len(e.Users), namedUsers)] {
		b.WriteString("\n  " + line)
	}
	if more := len(e.Users) - namedUsers; more > 0 {
		fmt.Fprintf(&b, "\n  and %d more", more)
	}
	b.WriteString("\ndelete these pods, and claims that no pod uses, and uninstall again")
	return b.String()
}

// claimsInUse describes the claims of the cluster that have devices of the driver.
// An API server that has no such thing as claims is Kubernetes before 1.34.
func claimsInUse(ctx context.Context, client kubernetes.Interface, driver string) (lines []string, err error) {
	options := metav1.ListOptions{Limit: page}
	for {
		list, err := client.ResourceV1().ResourceClaims(metav1.NamespaceAll).List(ctx, options)
		if apierrors.IsNotFound(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for claims that have devices of driver %s: %w", driver, err)
		}
		for _, claim := range list.Items {
			if line := describe(&claim, driver); line != "" {
				lines = append(lines, line)
			}
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return lines, nil
		}
	}
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

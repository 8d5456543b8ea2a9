package workload

import (
	"bytes"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
)

type applyContainer = applycorev1.ContainerApplyConfiguration

// applier returns who applied an object on the server's side, or nothing for one
// that was not: those who create and patch do not mind what others change.
func applier(managed []metav1.ManagedFieldsEntry) string {
	for _, entry := range managed {
		if entry.Operation == metav1.ManagedFieldsOperationApply && entry.Subresource == "" &&
			entry.FieldsV1 != nil && bytes.Contains(entry.FieldsV1.GetRawBytes(), []byte(`"f:template"`)) {
			return entry.Manager
		}
	}
	return ""
}

// orNull is what removes a field in a merge patch if it is empty.
func orNull(value string) any {
	if value == "" {
		return nil
	}
	return value
}

package pullsecret

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestOnlyCopiesOfThisSecretAreOurs(t *testing.T) {
	secret := func(label, from string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
			Name: "harbor", Namespace: "users", Labels: map[string]string{Label: label}, Annotations: map[string]string{Annotation: from},
		}}
	}
	for name, test := range map[string]struct {
		secret *corev1.Secret
		want   bool
	}{
		"a copy":                {secret("true", "driver/harbor"), true},
		"of another release":    {secret("true", "other/harbor"), false},
		"of another Secret":     {secret("true", "driver/old"), false},
		"label taken away":      {secret("", "driver/harbor"), false},
		"made by somebody else": {&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "harbor"}}, false},
	} {
		if got := isCopy(test.secret, "driver"); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestUsable(t *testing.T) {
	for say, secret := range map[string]*corev1.Secret{
		"":                               {Type: corev1.SecretTypeDockerConfigJson},
		"driver/harbor is not there":     nil,
		`has type "Opaque", want kubern`: {Type: corev1.SecretTypeOpaque},
	} {
		err := usable(secret, "driver", "harbor")
		if (err == nil) != (say == "") || err != nil && !strings.Contains(err.Error(), say) {
			t.Errorf("want %q, got %v", say, err)
		}
	}
}

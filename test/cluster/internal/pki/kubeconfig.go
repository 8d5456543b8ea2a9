package pki

import (
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"
)

// Kubeconfig writes a kubeconfig for an identity that was issued before. The
// certificates are inside it, so that it can be copied elsewhere.
func (a *Authority) Kubeconfig(path, cluster, server, identityFile string) error {
	type object = map[string]any
	ca, err := os.ReadFile(filepath.Join(a.dir, "ca.crt"))
	if err != nil {
		return fmt.Errorf("read the authority's certificate: %w", err)
	}
	cert, err := os.ReadFile(filepath.Join(a.dir, identityFile+".crt"))
	if err != nil {
		return fmt.Errorf("read the certificate of %s: %w", identityFile, err)
	}
	key, err := os.ReadFile(filepath.Join(a.dir, identityFile+".key"))
	if err != nil {
		return fmt.Errorf("read the key of %s: %w", identityFile, err)
	}
	content, err := yaml.Marshal(object{
		"apiVersion":      "v1",
		"kind":            "Config",
		"current-context": cluster,
		"clusters": []object{{"name": cluster, "cluster": object{
			"server": server, "certificate-authority-data": ca,
		}}},
		"users": []object{{"name": identityFile, "user": object{
			"client-certificate-data": cert, "client-key-data": key,
		}}},
		"contexts": []object{{"name": cluster, "context": object{
			"cluster": cluster, "user": identityFile,
		}}},
	})
	if err != nil {
		return fmt.Errorf("encode the kubeconfig of %s: %w", identityFile, err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return fmt.Errorf("write the kubeconfig of %s: %w", identityFile, err)
	}
	return nil
}

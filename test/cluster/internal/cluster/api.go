package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/eks-hybrid-dra/eks-hybrid-dra/test/cluster/internal/config"
)

// api asks the API server the few questions that a start needs answered.
type api struct {
	client *http.Client
	server string
}

func newAPI(c *config.Config, s config.State) (*api, error) {
	cert, err := tls.LoadX509KeyPair(s.Path("pki", "admin.crt"), s.Path("pki", "admin.key"))
	if err != nil {
		return nil, fmt.Errorf("load the admin's certificate: %w", err)
	}
	ca, err := os.ReadFile(s.Path("pki", "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("load the cluster's certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &api{
		server: fmt.Sprintf("https://%s:%d", c.Addresses().API, config.APIPort),
		client: &http.Client{
			Timeout: 5 * time.Second,
			// No proxy: the address is private to this machine.
			Transport: &http.Transport{TLSClientConfig: &tls.Config{
				RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12,
			}},
		},
	}, nil
}

func (a *api) get(ctx context.Context, path string) (body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.server+path, nil)
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("read the API server's answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the API server answers %s to %s: %s", response.Status, path, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// ready says why the API server is not ready.
func (a *api) ready(ctx context.Context) error {
	_, err := a.get(ctx, "/readyz")
	return err
}

// nodeReady says why the node is not ready, or not yet so since its last boot.
func (a *api) nodeReady(ctx context.Context, name, bootID string) error {
	body, err := a.get(ctx, "/api/v1/nodes/"+name)
	if err != nil {
		return err
	}
	var node struct {
		Status struct {
			NodeInfo   struct{ BootID string }
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(body, &node); err != nil {
		return fmt.Errorf("decode the node: %w", err)
	}
	if node.Status.NodeInfo.BootID != strings.TrimSpace(bootID) {
		return fmt.Errorf("the node %s has not reported since its boot", name)
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type != "Ready" {
			continue
		}
		if condition.Status == "True" {
			return nil
		}
		return fmt.Errorf("the node %s is not ready: %s", name, condition.Message)
	}
	return fmt.Errorf("the node %s has not said whether it is ready", name)
}

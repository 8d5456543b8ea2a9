// Command probe is the test pods' program: it tells what a pod sees of its
// cluster.
//
//	probe api    ask the API server, by the Service and token that every pod has, who the pod is
//	probe sleep  print a line and wait for the end
//	probe say …  print the arguments
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

const account = "/var/run/secrets/kubernetes.io/serviceaccount/"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want api, sleep or say")
	}
	switch args[0] {
	case "api":
		return api()
	case "say":
		fmt.Println(strings.Join(args[1:], " "))
		return nil
	case "sleep":
		fmt.Println("sleeping")
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
		<-ended
		return nil
	}
	return fmt.Errorf("%q is not known", args[0])
}

// api asks who the pod's service account is; any authenticated user may.
func api() error {
	answer, err := ask(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	if err != nil {
		return err
	}
	var review struct {
		Status struct {
			UserInfo struct {
				Username string
				Extra    map[string][]string
			}
		}
	}
	if err := json.Unmarshal(answer, &review); err != nil {
		return fmt.Errorf("decode the review: %w: %s", err, answer)
	}
	user := review.Status.UserInfo
	fmt.Println("user", user.Username, "node", strings.Join(user.Extra["authentication.kubernetes.io/node-name"], ","))
	return nil
}

// ask posts a review to the API server and returns its answer.
func ask(review string) (answer []byte, err error) {
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return nil, fmt.Errorf("read the cluster's certificate authority: %w", err)
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, fmt.Errorf("read the service account's token: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}}
	server := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	request, err := http.NewRequest(http.MethodPost, "https://"+server+"/apis/authentication.k8s.io/v1/selfsubjectreviews", strings.NewReader(review))
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the API server: %w", err)
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	if answer, err = io.ReadAll(response.Body); err != nil {
		return nil, fmt.Errorf("read the API server's answer: %w", err)
	}
	if response.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("the API server answers %s: %s", response.Status, answer)
	}
	return answer, nil
}

// Command probe is the test pods' program: it tells what a pod sees of its
// cluster.
//
//	probe api    ask the API server, by the Service and token that every pod has, for its own pod
//	probe sleep  print a line and wait for the end
//	probe say …  print the arguments
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
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
		return fmt.Errorf("want api, sleep or say")
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

// api reviews its own identity: any authenticated user may.
func api() (err error) {
	ca, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		return err
	}
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	server := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	body := strings.NewReader(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	request, err := http.NewRequest(http.MethodPost, "https://"+server+"/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(response.Body)
	if err := response.Body.Close(); err != nil {
		return err
	}
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
		return fmt.Errorf("%s: %w: %s", response.Status, err, answer)
	}
	user := review.Status.UserInfo
	fmt.Println("user", user.Username, "node", strings.Join(user.Extra["authentication.kubernetes.io/node-name"], ","))
	return nil
}

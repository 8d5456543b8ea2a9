// Package e2e holds the end-to-end tests: what users are promised, checked on a
// real Kubernetes node with a simulated DGX H200.
//
// One cluster serves all tests, and each test works in a namespace of its own.
// The node has eight GPUs: tests that need more than a few of them, or that
// stop the driver, do not run beside others. Run them with `make e2e`, or for
// one test
//
//	go test ./test/e2e -run TestName -v
//
// E2E_KEEP=1 leaves the cluster up, so that the next run starts at once.
// E2E_CLUSTER names it, so that two runs on one machine do not share theirs.
// E2E_KUBERNETES_VERSION, such as v1.36.3, chooses its version.
// ROUNDS_SEED repeats the random claims of an earlier run.
// E2E_KUBECONFIG names a cluster of your own with one DGX H200 in it.
package e2e

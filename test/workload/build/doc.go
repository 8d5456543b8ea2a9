// Command build makes the stand-in image and writes it into one tar file that
// containerd can import, tagged with every image name that examples and tests
// use, so that these run unchanged on a cluster that reaches no registry.
//
//	go run ./test/workload/build -o bin/workload-image.tar
package main

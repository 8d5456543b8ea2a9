package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// metadataDir is where kubelet plugins put what they know about a container's
// devices (KEP-5304). It is written out here because the package that defines
// it, k8s.io/dynamic-resource-allocation/api/metadata, is most of a Kubernetes
// client.
const metadataDir = "/var/run/kubernetes.io/dra-device-attributes"

// python plays the one script that the examples run, train.py. It fails where
// real training would: when the container sees no GPU.
func python(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 1 || args[0] != "train.py" {
		return fmt.Errorf("cannot run %q: this stand-in knows only train.py", strings.Join(args, " "))
	}
	list, err := exec.CommandContext(ctx, "nvidia-smi", "-L").CombinedOutput()
	if err != nil {
		return fmt.Errorf("looking for GPUs: nvidia-smi -L: %w: %s", err, list)
	}
	gpus := strings.Count(string(list), "UUID: GPU-")
	if gpus == 0 {
		return errors.New("no GPU to train on: nvidia-smi lists none")
	}
	files, err := metadataFiles(metadataDir)
	if err != nil {
		return err
	}

	var report strings.Builder
	fmt.Fprintf(&report, "%s", list)
	fmt.Fprintf(&report, "NVIDIA_VISIBLE_DEVICES=%s\n", os.Getenv("NVIDIA_VISIBLE_DEVICES"))
	for _, file := range files {
		fmt.Fprintf(&report, "device metadata in %s\n", file)
	}
	fmt.Fprintf(&report, "trained on %d GPU(s)\n", gpus)
	_, err = io.WriteString(stdout, report.String())
	return err
}

// metadataFiles lists the files below dir that describe the container's
// devices. There are none where the driver writes none.
func metadataFiles(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.IsDir() {
			files = append(files, path)
		}
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("looking for device metadata: %w", err)
	}
	return files, nil
}

package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Images are the tar files that a test cluster needs instead of a registry.
type Images struct {
	// Driver holds localhost/eks-hybrid-dra:dev.
	Driver string
	// Workload holds what the examples' images are called.
	Workload string
}

// FindImages returns the files that E2E_IMAGE_TAR and E2E_WORKLOAD_TAR name,
// and builds those that the environment does not name.
func FindImages(ctx context.Context, steps Steps) (Images, error) {
	root, err := Repository()
	if err != nil {
		return Images{}, err
	}
	images := Images{Driver: os.Getenv("E2E_IMAGE_TAR"), Workload: os.Getenv("E2E_WORKLOAD_TAR")}
	if images.Driver == "" {
		images.Driver = filepath.Join(root, "bin", "eks-hybrid-dra-image.tar")
		err := steps.Do("Building the driver's image", func() error {
			return goRun(ctx, steps, root, "./build/image", "--output", images.Driver)
		})
		if err != nil {
			return Images{}, err
		}
	}
	if images.Workload == "" {
		images.Workload = filepath.Join(root, "bin", "workload-image.tar")
		err := steps.Do("Building the image that stands in for those of the examples", func() error {
			return goRun(ctx, steps, root, "./test/workload/build", "-o", images.Workload)
		})
		if err != nil {
			return Images{}, err
		}
	}
	for _, file := range []string{images.Driver, images.Workload} {
		if _, err := os.Stat(file); err != nil {
			return Images{}, fmt.Errorf("image file: %w", err)
		}
	}
	return images, nil
}

func goRun(ctx context.Context, steps Steps, root string, args ...string) error {
	_, err := command{Dir: root, Path: "go", Args: append([]string{"run"}, args...), Show: steps.Out}.run(ctx)
	return err
}

package main

import (
	"context"
	"fmt"
	"io"
	"os"
)

// ls prints the names in the given folders, one per line.
func ls(_ context.Context, args []string, stdout io.Writer) error {
	for _, folder := range args {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if _, err := fmt.Fprintln(stdout, entry.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

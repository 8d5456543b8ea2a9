// Package image packs one static program into a container image archive that
// containerd imports. The archive has the layout of `docker save`: a layer, a
// config and manifest.json.
package image

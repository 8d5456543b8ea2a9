// Package uninstall takes the driver out of a cluster before its objects are
// deleted: it refuses while claims have devices, has the plugin take itself off
// every node, undoes what the controller has done to objects of others, and
// removes what no chart knows of. What fails is put back, so that the driver
// serves on; every step may be repeated.
package uninstall

// Package cache keeps what is costly to make, folder by folder, in the cache
// that all clones of this project share. A folder that exists is complete: it
// is made under another name and renamed, by one process at a time.
package cache

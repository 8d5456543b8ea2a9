package registrytrust

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// The files of a registry's folder.
const (
	hostsFile  = "hosts.toml"
	bundleFile = "ca.crt"
)

// signature begins the first line of every file that is written here.
const signature = "# eks-hybrid-dra registry-trust sha256:"

// The second line says who made the folder that the file is in, since only a
// folder that was made here is removed with it.
const (
	folderMade  = "# folder: made\n"
	folderFound = "# folder: found\n"
)

// sign makes a file's content tell by its first line that it was written here,
// for this folder and under this name, and has not changed since.
func sign(folder, name, body string) []byte {
	return []byte(signature + checksum(folder, name, body) + "\n" + body)
}

// signed says whether the content was written here for this place.
func signed(folder, name string, content []byte) bool {
	first, body, ok := strings.Cut(string(content), "\n")
	sum, marked := strings.CutPrefix(first, signature)
	return ok && marked && sum == checksum(folder, name, body)
}

// madeFolder says whether a signed file's folder was made here.
func madeFolder(content []byte) bool {
	_, body, _ := strings.Cut(string(content), "\n")
	return strings.HasPrefix(body, folderMade)
}

// checksum covers the place, so that a copy in another folder is not taken for
// a file that was written there.
func checksum(folder, name, body string) string {
	sum := sha256.Sum256([]byte(folder + "\n" + name + "\n" + body))
	return hex.EncodeToString(sum[:])
}

// contents returns the files of a registry's folder.
func contents(host string, bundle []byte, made bool) map[string][]byte {
	origin := folderFound
	if made {
		origin = folderMade
	}
	const note = "# Do not edit: change the ConfigMap or Secret of registry-trust. A file that was\n# changed here is left alone from then on.\n"
	folder := FolderOf(host)
	return map[string][]byte{
		// The path of the certificates is relative to the folder. Settings for the
		// server itself, without a [host] of its own, keep errors short: there is
		// one address to try.
		hostsFile:  sign(folder, hostsFile, origin+note+fmt.Sprintf("server = %q\nca = %q\n", "https://"+host, bundleFile)),
		bundleFile: sign(folder, bundleFile, origin+note+string(bundle)),
	}
}

// Package registrytrust makes the containerd of one node trust the private
// certificate authorities of registries, and says whether it worked.
//
// From a mounted ConfigMap or Secret it writes a hosts.toml and a ca.crt for
// each registry into containerd's folder for them, which containerd reads at
// each pull, so that nothing is ever restarted. Each file that it writes names
// itself by a checksum in its first line, so what is its own can be told from
// what is not, after a crash too, without a list that could be lost. Then it
// shakes hands with the registry as containerd would, and reports what came of
// it.
package registrytrust

package gpu

import "testing"

func TestSemanticVersion(t *testing.T) {
	for in, want := range map[string]string{
		"550.54.15":     "550.54.15",
		"550.54":        "550.54.0",
		"535.161.08":    "535.161.8",
		"570":           "570.0.0",
		" 550.54.15\n":  "550.54.15",
		"":              "",
		"550.54.15.01":  "",
		"550.54-beta":   "",
		"550..1":        "",
		"-1.2.3":        "",
		"99999999999.0": "",
	} {
		got, ok := semanticVersion(in)
		if got != want || ok != (want != "") {
			t.Errorf("%q: got %q, %t, want %q", in, got, ok, want)
		}
	}
}

func TestCUDAVersion(t *testing.T) {
	for in, want := range map[int]string{12040: "12.4.0", 11080: "11.8.0", 13010: "13.1.0"} {
		if got := cudaVersion(in); got != want {
			t.Errorf("%d: got %s, want %s", in, got, want)
		}
	}
}

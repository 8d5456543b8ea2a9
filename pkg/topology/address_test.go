package topology

import (
	"strings"
	"testing"
)

func TestParseAddress(t *testing.T) {
	for _, tc := range []struct {
		in, want, wantErr string
	}{
		{in: "0000:1b:00.0", want: "0000:1b:00.0"},
		{in: "00000000:1B:00.0", want: "0000:1b:00.0"},
		{in: "0001:FF:1f.7", want: "0001:ff:1f.7"},
		{in: "10000:e1:00.0", want: "10000:e1:00.0"},
		{in: "00010000:E1:00.0", want: "10000:e1:00.0"},
		{in: "", wantErr: "no colon"},
		{in: "1b:00.0", wantErr: "one colon only"},
		{in: "0000:1b:00", wantErr: "no dot"},
		{in: "000:1b:00.0", wantErr: `domain "000" has the wrong length`},
		{in: "0000:1g:00.0", wantErr: `bus "1g" is not hexadecimal`},
		{in: "0000:+1:00.0", wantErr: `bus "+1" is not hexadecimal`},
		{in: "0000:1b:20.0", wantErr: `device "20" is more than 1f`},
		{in: "0000:1b:00.8", wantErr: `function "8" is more than 7`},
		{in: "0000:1b:00.0 ", wantErr: `function "0 " has the wrong length`},
	} {
		t.Run(tc.in, func(t *testing.T) {
			got, err := ParseAddress(tc.in)
			if tc.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tc.wantErr) {
					t.Fatalf("got address %v, error %v, want an error with %q", got, err, tc.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.String() != tc.want {
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, seed := range []string{"0000:1b:00.0", "00000000:1B:00.0", "10000:e1:00.0", "0000:1b:20.0", "::.", "0000:_1:00.0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		address, err := ParseAddress(in)
		if err != nil {
			return
		}
		again, err := ParseAddress(address.String())
		if err != nil {
			t.Fatalf("%q became %s, which is refused: %v", in, address, err)
		}
		if again != address {
			t.Fatalf("%q became %s, and that became %s", in, address, again)
		}
		if trimmed := strings.TrimLeft(strings.ToLower(in), "0"); !strings.HasSuffix(address.String(), trimmed) {
			t.Fatalf("%q became %s, another place", in, address)
		}
	})
}

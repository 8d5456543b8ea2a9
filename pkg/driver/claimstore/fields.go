package claimstore

import (
	"reflect"
	"strings"
)

// knownFields returns the JSON names of the fields of the struct that value
// points to.
func knownFields(value any) []string {
	t := reflect.TypeOf(value).Elem()
	var names []string
	for i := range t.NumField() {
		if !t.Field(i).IsExported() {
			continue
		}
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

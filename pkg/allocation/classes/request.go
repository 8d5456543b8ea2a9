package classes

import (
	resourceapi "k8s.io/api/resource/v1"
)

// Asked is one class that a claim asks for devices of.
type Asked struct {
	// Request is the request's name; that of an alternative is written
	// "request/alternative".
	Request string
	Class   string
}

// Of returns what a claim asks for, in the order of its requests.
func Of(spec *resourceapi.ResourceClaimSpec) []Asked {
	var all []Asked
	for _, r := range spec.Devices.Requests {
		if r.Exactly != nil {
			all = append(all, Asked{Request: r.Name, Class: r.Exactly.DeviceClassName})
		}
		for _, sub := range r.FirstAvailable {
			all = append(all, Asked{Request: r.Name + "/" + sub.Name, Class: sub.DeviceClassName})
		}
	}
	return all
}

package simulated

import (
	"reflect"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// guard makes every method of a go-nvml mock safe to call. The mocks have a
// field XxxFunc for each method Xxx and panic where it is nil. Behind guard a
// method answers what fault says, unless that is SUCCESS; then what its field
// held; and ERROR_NOT_SUPPORTED where it held nothing. The result lists the
// methods whose field was set.
func guard(mock any, fault func() nvml.Return) []string {
	var answered []string
	fields := reflect.ValueOf(mock).Elem()
	for i := range fields.NumField() {
		name, isFunc := strings.CutSuffix(fields.Type().Field(i).Name, "Func")
		if !isFunc {
			continue
		}
		field := fields.Field(i)
		impl := reflect.ValueOf(field.Interface())
		if impl.IsNil() {
			impl = delegate(name, field.Type())
		} else {
			answered = append(answered, name)
		}
		field.Set(guarded(field.Type(), impl, fault))
	}
	return answered
}

func guarded(t reflect.Type, impl reflect.Value, fault func() nvml.Return) reflect.Value {
	return reflect.MakeFunc(t, func(args []reflect.Value) []reflect.Value {
		if ret := fault(); ret != nvml.SUCCESS {
			return refusal(t, ret)
		}
		if !impl.IsValid() {
			return refusal(t, nvml.ERROR_NOT_SUPPORTED)
		}
		return impl.Call(args)
	})
}

// refusal holds zero values for the results of t, and ret for those that tell
// whether the call worked.
func refusal(t reflect.Type, ret nvml.Return) []reflect.Value {
	var results []reflect.Value
	for i := range t.NumOut() {
		result := reflect.Zero(t.Out(i))
		if t.Out(i) == reflect.TypeOf(ret) {
			result = reflect.ValueOf(ret)
		}
		results = append(results, result)
	}
	return results
}

// delegate finds the method that a function of nvml.Interface stands for:
// DeviceGetName(device) is device.GetName(). The zero Value means that there
// is none.
func delegate(name string, t reflect.Type) reflect.Value {
	if t.NumIn() == 0 || t.In(0).Kind() != reflect.Interface {
		return reflect.Value{}
	}
	handle := t.In(0)
	method, found := handle.MethodByName(strings.TrimPrefix(name, handle.Name()))
	if !found || method.Type.NumIn() != t.NumIn()-1 || method.Type.NumOut() != t.NumOut() {
		return reflect.Value{}
	}
	return reflect.MakeFunc(t, func(args []reflect.Value) []reflect.Value {
		if args[0].IsNil() {
			return refusal(t, nvml.ERROR_INVALID_ARGUMENT)
		}
		return args[0].MethodByName(method.Name).Call(args[1:])
	})
}

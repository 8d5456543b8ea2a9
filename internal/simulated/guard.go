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

// delegate makes the function that stands for a method of its first argument:
// DeviceGetName(device) is device.GetName(). The zero Value means that there is
// none. It calls the mock's field, not its method: the linker keeps every
// method of every type in a program that looks methods up by name, which makes
// this one half as large again.
func delegate(name string, t reflect.Type) reflect.Value {
	if t.NumIn() == 0 || t.In(0).Kind() != reflect.Interface {
		return reflect.Value{}
	}
	field, isMethod := strings.CutPrefix(name, t.In(0).Name())
	if !isMethod {
		return reflect.Value{}
	}
	return reflect.MakeFunc(t, func(args []reflect.Value) []reflect.Value {
		if args[0].IsNil() {
			return refusal(t, nvml.ERROR_INVALID_ARGUMENT)
		}
		method := fieldOf(args[0].Elem(), field+"Func")
		if !method.IsValid() || method.Kind() != reflect.Func || method.IsNil() || !fits(method.Type(), t) {
			return refusal(t, nvml.ERROR_NOT_SUPPORTED)
		}
		return method.Call(args[1:])
	})
}

// fieldOf returns a field of the struct that value points to, or the zero
// Value.
func fieldOf(value reflect.Value, name string) reflect.Value {
	if value.Kind() != reflect.Pointer || value.IsNil() || value.Elem().Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return value.Elem().FieldByName(name)
}

// fits tells whether method is function without its first argument.
func fits(method, function reflect.Type) bool {
	return method.NumIn() == function.NumIn()-1 && method.NumOut() == function.NumOut()
}

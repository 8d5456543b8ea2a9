package simulated

import (
	"sync"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"
)

// gpuEvents are those that a Hopper GPU supports.
const gpuEvents = nvml.EventTypeSingleBitEccError | nvml.EventTypeDoubleBitEccError |
	nvml.EventTypePState | nvml.EventTypeXidCriticalError | nvml.EventTypeClock

func completeEvents(d *server.Device) {
	d.GetSupportedEventTypesFunc = answer(uint64(gpuEvents))
	d.RegisterEventsFunc = func(types uint64, set nvml.EventSet) nvml.Return {
		switch {
		case set == nil:
			return nvml.ERROR_INVALID_ARGUMENT
		case types&^gpuEvents != 0:
			return nvml.ERROR_NOT_SUPPORTED
		}
		return nvml.SUCCESS
	}
}

// newEventSet makes a set on which nothing ever happens: waiting takes its
// time, and ends early only when the set is freed.
func newEventSet() *mock.EventSet {
	freed := make(chan struct{})
	var once sync.Once
	wait := func(milliseconds uint32) nvml.Return {
		timer := time.NewTimer(time.Duration(milliseconds) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-freed:
			return nvml.ERROR_INVALID_ARGUMENT
		case <-timer.C:
			return nvml.ERROR_TIMEOUT
		}
	}
	set := &mock.EventSet{
		WaitFunc: func(milliseconds uint32) (nvml.EventData, nvml.Return) {
			return nvml.EventData{}, wait(milliseconds)
		},
		Wait_v3Func: func(milliseconds uint32) (nvml.EventSetWaitData_v3, nvml.Return) {
			return nvml.EventSetWaitData_v3{}, wait(milliseconds)
		},
		FreeFunc: func() nvml.Return {
			once.Do(func() { close(freed) })
			return nvml.SUCCESS
		},
	}
	guard(set, working)
	return set
}

package main

import (
	"strconv"
	"strings"
	"time"
)

const usage = `NVIDIA System Management Interface -- imitation for simulated machines
                                      (no GPU hardware is involved)

nvidia-smi [OPTION1 [ARG1]] [OPTION2 [ARG2]] ...

    -h,   --help                Print usage information and exit.

  LIST OPTIONS:

    -L,   --list-gpus           Display a list of GPUs in the container.

  SUMMARY OPTIONS:

    <no arguments>              Show a summary of the GPUs in the container.

    [plus optionally]

    -i,   --id=                 Target a specific GPU: index, UUID or PCI bus id.
    -l,   --loop=               Probe until Ctrl+C at specified second interval.

  SELECTIVE QUERY OPTIONS:

          --query-gpu=          Fields, separated by commas: index, count, uuid,
                                name, serial, memory.total, memory.used,
                                memory.free, pci.bus_id, driver_version,
                                compute_cap, utilization.gpu, temperature.gpu
    [mandatory]
          --format=             csv, and optionally noheader and nounits`

type options struct {
	help, list    bool
	id            string
	loop          time.Duration
	query         []string
	header, units bool
}

func parseArgs(args []string) (options, error) {
	o := options{header: true, units: true}
	formatted := false
	for len(args) > 0 {
		name, value, hasValue := strings.Cut(args[0], "=")
		args = args[1:]
		if takesValue(name) && !hasValue {
			if len(args) == 0 {
				return o, refuse("Option %q is missing its value. Please run 'nvidia-smi -h' for help.", name)
			}
			value, args = args[0], args[1:]
		}
		switch name {
		case "-h", "--help":
			o.help = true
		case "-L", "--list-gpus":
			o.list = true
		case "-i", "--id":
			o.id = value
		case "-l", "--loop":
			seconds, err := strconv.Atoi(value)
			if err != nil || seconds < 1 {
				return o, refuse("Invalid loop interval %q: it must be a number of seconds.", value)
			}
			o.loop = time.Duration(seconds) * time.Second
		case "--query-gpu":
			o.query = splitList(value)
		case "--format":
			formatted = true
			if err := o.setFormat(value); err != nil {
				return o, err
			}
		default:
			return o, refuse("Invalid combination of input arguments. Please run 'nvidia-smi -h' for help.")
		}
	}
	return o, o.check(formatted)
}

func refuse(format string, args ...any) error {
	return fail(exitInvalidArgument, format, args...)
}

func takesValue(name string) bool {
	switch name {
	case "-i", "--id", "-l", "--loop", "--query-gpu", "--format":
		return true
	}
	return false
}

func (o *options) setFormat(value string) error {
	csv := false
	for _, word := range splitList(value) {
		switch word {
		case "csv":
			csv = true
		case "noheader":
			o.header = false
		case "nounits":
			o.units = false
		default:
			return refuse("%q is not a valid format. Please run 'nvidia-smi -h' for help.", word)
		}
	}
	if !csv {
		return refuse("\"--format=\" must name csv. Please run 'nvidia-smi -h' for help.")
	}
	return nil
}

func (o *options) check(formatted bool) error {
	if (o.query != nil) != formatted {
		return refuse("\"--query-gpu=\" and \"--format=\" go together. Please run 'nvidia-smi -h' for help.")
	}
	for _, name := range o.query {
		if _, known := findField(name); !known {
			return refuse("Field %q is not a valid field to query.\n", name)
		}
	}
	return nil
}

func splitList(value string) []string {
	words := strings.Split(value, ",")
	for i := range words {
		words[i] = strings.TrimSpace(words[i])
	}
	return words
}

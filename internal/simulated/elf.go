package simulated

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"runtime"
)

// pageSize is the largest page size of the architectures we run on (arm64 has
// kernels with 64 KiB): a segment aligned to it loads everywhere.
const pageSize = 0x10000

// sharedObject returns an ELF shared library without a symbol, under the given
// SONAME: enough for ldconfig to make its link, for dlopen to load it, and for
// nvcdi to read the name.
func sharedObject(soname string) ([]byte, error) {
	machine, err := elfMachine(runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	return newObject(soname, machine).bytes()
}

func elfMachine(arch string) (elf.Machine, error) {
	switch arch {
	case "amd64":
		return elf.EM_X86_64, nil
	case "arm64":
		return elf.EM_AARCH64, nil
	}
	return 0, fmt.Errorf("cannot make libraries of a simulated driver for %s: only for amd64 and arm64", arch)
}

// object is the layout of a library: program headers, then the tables that the
// dynamic section points to, then the section headers. Its one segment is
// loaded at address 0, so addresses are offsets in the file.
type object struct {
	machine          elf.Machine
	strings, names   []byte
	hash, symbols    []byte
	hashAt, symAt    uint64
	stringsAt, dynAt uint64
	namesAt, shAt    uint64
}

const (
	headerSize  = 64
	programSize = 56
	sectionSize = 64
	symbolSize  = 24
	dynSize     = 16

	programs  = 3
	dynamics  = 7
	sonameAt  = 1
	nameTable = "\x00.hash\x00.dynsym\x00.dynstr\x00.dynamic\x00.shstrtab\x00"
)

func newObject(soname string, machine elf.Machine) *object {
	o := &object{
		machine: machine,
		strings: []byte("\x00" + soname + "\x00"),
		names:   []byte(nameTable),
		// One bucket, one chain, both empty: only the null symbol.
		hash:    binary.LittleEndian.AppendUint32(append(make([]byte, 0, 16), 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0), 0),
		symbols: make([]byte, symbolSize),
	}
	o.hashAt = headerSize + programs*programSize
	o.symAt = o.hashAt + uint64(len(o.hash))
	o.dynAt = o.symAt + symbolSize
	o.stringsAt = o.dynAt + dynamics*dynSize
	o.namesAt = o.stringsAt + uint64(len(o.strings))
	o.shAt = (o.namesAt + uint64(len(o.names)) + 7) &^ 7
	return o
}

func (o *object) bytes() ([]byte, error) {
	var b bytes.Buffer
	parts := []any{o.header(), o.programs(), o.hash, o.symbols, o.dynamic(), o.strings, o.names}
	for _, part := range parts {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("encoding a library of a simulated driver: %w", err)
		}
	}
	b.Write(make([]byte, o.shAt-uint64(b.Len())))
	if err := binary.Write(&b, binary.LittleEndian, o.sections()); err != nil {
		return nil, fmt.Errorf("encoding a library of a simulated driver: %w", err)
	}
	return b.Bytes(), nil
}

func (o *object) header() elf.Header64 {
	h := elf.Header64{
		Type:      uint16(elf.ET_DYN),
		Machine:   uint16(o.machine),
		Version:   uint32(elf.EV_CURRENT),
		Phoff:     headerSize,
		Shoff:     o.shAt,
		Ehsize:    headerSize,
		Phentsize: programSize,
		Phnum:     programs,
		Shentsize: sectionSize,
		Shnum:     6,
		Shstrndx:  5,
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
	h.Ident[elf.EI_DATA] = byte(elf.ELFDATA2LSB)
	h.Ident[elf.EI_VERSION] = byte(elf.EV_CURRENT)
	return h
}

// programs are the segments. The loader writes into the dynamic section, so
// the segment is writable; without PT_GNU_STACK it would ask for an executable
// stack, which new C libraries refuse.
func (o *object) programs() []elf.Prog64 {
	rw := uint32(elf.PF_R | elf.PF_W)
	size := uint64(dynamics * dynSize)
	return []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Flags: rw, Filesz: o.namesAt, Memsz: o.namesAt, Align: pageSize},
		{Type: uint32(elf.PT_DYNAMIC), Flags: rw, Off: o.dynAt, Vaddr: o.dynAt, Paddr: o.dynAt, Filesz: size, Memsz: size, Align: 8},
		{Type: uint32(elf.PT_GNU_STACK), Flags: rw, Align: 16},
	}
}

func (o *object) dynamic() []elf.Dyn64 {
	return []elf.Dyn64{
		{Tag: int64(elf.DT_SONAME), Val: sonameAt},
		{Tag: int64(elf.DT_HASH), Val: o.hashAt},
		{Tag: int64(elf.DT_STRTAB), Val: o.stringsAt},
		{Tag: int64(elf.DT_SYMTAB), Val: o.symAt},
		{Tag: int64(elf.DT_STRSZ), Val: uint64(len(o.strings))},
		{Tag: int64(elf.DT_SYMENT), Val: symbolSize},
		{Tag: int64(elf.DT_NULL)},
	}
}

func (o *object) sections() []elf.Section64 {
	section := func(name string, kind elf.SectionType, at, size uint64, link uint32, entry uint64) elf.Section64 {
		s := elf.Section64{
			Name: uint32(bytes.Index(o.names, []byte(name+"\x00"))), Type: uint32(kind),
			Off: at, Size: size, Link: link, Addralign: 8, Entsize: entry,
		}
		if name != ".shstrtab" {
			s.Flags, s.Addr = uint64(elf.SHF_ALLOC), at
		}
		if kind == elf.SHT_STRTAB {
			s.Addralign = 1
		}
		return s
	}
	symbols := section(".dynsym", elf.SHT_DYNSYM, o.symAt, symbolSize, 3, symbolSize)
	symbols.Info = 1 // the first symbol that is not local: behind the last
	dynamic := section(".dynamic", elf.SHT_DYNAMIC, o.dynAt, dynamics*dynSize, 3, dynSize)
	dynamic.Flags |= uint64(elf.SHF_WRITE)
	return []elf.Section64{
		{},
		section(".hash", elf.SHT_HASH, o.hashAt, uint64(len(o.hash)), 2, 4),
		symbols,
		section(".dynstr", elf.SHT_STRTAB, o.stringsAt, uint64(len(o.strings)), 0, 0),
		dynamic,
		section(".shstrtab", elf.SHT_STRTAB, o.namesAt, uint64(len(o.names)), 0, 0),
	}
}

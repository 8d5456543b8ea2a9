package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// ping sends echo requests to an address, and fails when none is answered.
func ping(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("ping", flag.ContinueOnError)
	count := flags.Int("c", 1, "number of requests")
	wait := flags.Int("W", 1, "seconds to wait for each answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	to, err := netip.ParseAddr(flags.Arg(0))
	if err != nil || flags.NArg() != 1 {
		return fmt.Errorf("want one address, got %q", flags.Args())
	}
	e := echo{network: "ip4:icmp", local: "0.0.0.0", request: 8, reply: 0}
	if to.Is6() {
		// The kernel fills in the checksum, which covers the addresses.
		e = echo{network: "ip6:ipv6-icmp", local: "::", request: 128, reply: 129}
	}
	socket, err := (&net.ListenConfig{}).ListenPacket(ctx, e.network, e.local)
	if err != nil {
		return fmt.Errorf("opening a socket: %w", err)
	}
	defer func() { _ = socket.Close() }()
	answers := 0
	for sequence := 1; sequence <= *count && ctx.Err() == nil; sequence++ {
		took, err := e.exchange(socket, to, uint16(sequence), time.Duration(*wait)*time.Second)
		if err != nil {
			fmt.Fprintf(stdout, "No answer from %s: seq=%d: %v\n", to, sequence, err)
			continue
		}
		answers++
		fmt.Fprintf(stdout, "64 bytes from %s: seq=%d time=%.3f ms\n", to, sequence, took.Seconds()*1000)
	}
	fmt.Fprintf(stdout, "%d packets transmitted, %d packets received\n", *count, answers)
	if answers == 0 {
		return fmt.Errorf("%s does not answer", to)
	}
	return nil
}

// echo is one version of the echo protocol.
type echo struct {
	network, local string
	request, reply byte
}

// exchange sends one request and waits for its answer.
func (e echo) exchange(socket net.PacketConn, to netip.Addr, sequence uint16, wait time.Duration) (time.Duration, error) {
	start := time.Now()
	if err := socket.SetDeadline(start.Add(wait)); err != nil {
		return 0, err
	}
	message := make([]byte, 64)
	message[0] = e.request
	binary.BigEndian.PutUint16(message[4:], uint16(os.Getpid()))
	binary.BigEndian.PutUint16(message[6:], sequence)
	binary.BigEndian.PutUint64(message[8:], uint64(start.UnixNano()))
	binary.BigEndian.PutUint16(message[2:], checksum(message))
	if _, err := socket.WriteTo(message, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()}); err != nil {
		return 0, err
	}
	buffer := make([]byte, 1500)
	for {
		n, _, err := socket.ReadFrom(buffer)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = errors.New("timed out")
			}
			return 0, err
		}
		// The time of sending tells our requests apart from all others.
		if n == len(message) && buffer[0] == e.reply && bytes.Equal(buffer[4:n], message[4:]) {
			return time.Since(start), nil
		}
	}
}

// checksum is that of RFC 1071.
func checksum(message []byte) uint16 {
	var sum uint32
	for i := 0; i < len(message); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(message[i:]))
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

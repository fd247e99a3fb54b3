// Command client opens streams of ADS, each on a connection of its own, and acknowledges whatever it is sent.
//
// It is steered over standard input, and answers each line by one line of JSON:
//
//	open N K   open N streams, K of them at a time; answered when each has its first answer, or after -timeout
//	expect     wait until each stream has one more answer
//	churn N K  open N more streams, K at a time, and close each after its first answer
//	close      close all streams
//
// It sends and reads bytes rather than messages: it shares the machine's cores with the server that it measures.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	typeURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	service = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
	// A window that is larger than the default keeps grpc-go from probing the bandwidth by PINGs, which Envoy does not.
	window = 1 << 20
)

// variant is one of the two protocols: its method, and the numbers of the fields that it writes.
type variant struct {
	method                           string
	node, typeURL, names, nonce, ack protowire.Number
}

var variants = map[string]variant{
	"sotw":  {method: "StreamAggregatedResources", node: 2, names: 3, typeURL: 4, nonce: 5, ack: 1},
	"delta": {method: "DeltaAggregatedResources", node: 1, typeURL: 2, names: 3, nonce: 6},
}

// Fields of both DiscoveryResponse and DeltaDiscoveryResponse.
const (
	versionField protowire.Number = 1
	nonceField   protowire.Number = 5
)

// raw passes messages as bytes.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = raw{}

// fleet is all streams that are open.
type fleet struct {
	address string
	variant variant
	first   []byte
	names   []byte
	timeout time.Duration

	streams  []*stream
	expected int
	lost     atomic.Int64
	problem  atomic.Value
}

// stream is one subscriber.
type stream struct {
	stop func()

	mutex    sync.Mutex
	answers  int
	at       int64
	size     int
	ended    bool
	answered chan struct{}
}

func (f *fleet) open() *stream {
	ctx, cancel := context.WithCancel(context.Background())
	s := &stream{stop: cancel, answered: make(chan struct{}, 1)}
	go func() {
		err := f.follow(ctx, s)
		if ctx.Err() == nil {
			f.lost.Add(1)
			f.problem.Store(fmt.Sprint(err))
		}
		s.mutex.Lock()
		s.ended = true
		s.mutex.Unlock()
		s.notify()
	}()
	return s
}

// follow subscribes, and acknowledges answers until the stream ends.
func (f *fleet) follow(ctx context.Context, s *stream) error {
	connection, err := grpc.NewClient(
		"passthrough:///"+f.address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(raw{}), grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithInitialWindowSize(window),
		grpc.WithInitialConnWindowSize(window),
		grpc.WithReadBufferSize(4096),
		grpc.WithSharedWriteBuffer(true),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return err
	}
	defer connection.Close()
	description := &grpc.StreamDesc{StreamName: f.variant.method, ServerStreams: true, ClientStreams: true}
	call, err := connection.NewStream(ctx, description, service+f.variant.method)
	if err != nil {
		return err
	}
	if err := call.SendMsg(&f.first); err != nil {
		return errors.Join(err, call.RecvMsg(new([]byte)))
	}
	for {
		var answer []byte
		if err := call.RecvMsg(&answer); err != nil {
			return err
		}
		s.receive(len(answer))
		request, err := f.acknowledge(answer)
		if err != nil {
			return err
		}
		if err := call.SendMsg(&request); err != nil {
			return errors.Join(err, call.RecvMsg(new([]byte)))
		}
	}
}

// acknowledge returns the request that accepts an answer.
func (f *fleet) acknowledge(answer []byte) ([]byte, error) {
	var version, nonce []byte
	for len(answer) > 0 {
		number, kind, length := protowire.ConsumeTag(answer)
		if length < 0 {
			return nil, protowire.ParseError(length)
		}
		answer = answer[length:]
		size := protowire.ConsumeFieldValue(number, kind, answer)
		if size < 0 {
			return nil, protowire.ParseError(size)
		}
		if kind == protowire.BytesType && (number == versionField || number == nonceField) {
			value, _ := protowire.ConsumeBytes(answer)
			if number == versionField {
				version = value
			} else {
				nonce = value
			}
		}
		answer = answer[size:]
	}
	var request []byte
	if f.variant.ack != 0 {
		// In the state of the world, an acknowledgement repeats names and version.
		request = appendBytes(request, f.variant.ack, version)
		request = append(request, f.names...)
	}
	request = appendBytes(request, f.variant.typeURL, []byte(typeURL))
	return appendBytes(request, f.variant.nonce, nonce), nil
}

func (s *stream) receive(size int) {
	s.mutex.Lock()
	s.answers++
	s.at = now()
	s.size = size
	s.mutex.Unlock()
	s.notify()
}

func (s *stream) notify() {
	select {
	case s.answered <- struct{}{}:
	default:
	}
}

// await waits for so many answers in whole; it returns false when the stream ended before, or time ran out.
func (s *stream) await(answers int, deadline <-chan struct{}) bool {
	for {
		s.mutex.Lock()
		enough, ended := s.answers >= answers, s.ended
		s.mutex.Unlock()
		if enough || ended {
			return enough
		}
		select {
		case <-s.answered:
		case <-deadline:
			return false
		}
	}
}

// report is what one command found; times are the kernel's monotonic nanoseconds.
type report struct {
	Begun  int64 `json:"begun"`
	First  int64 `json:"first"`
	Last   int64 `json:"last"`
	Bytes  int   `json:"bytes"`
	Silent int   `json:"silent"`
	// Ahead is how many streams have more answers than were expected: an answer came that no command waited for.
	Ahead int `json:"ahead"`
	// Lost is how many streams ended by themselves since the client began.
	Lost    int64  `json:"lost"`
	Problem string `json:"problem"`
}

func (f *fleet) openMany(count, together int) report {
	begun := now()
	slots := make(chan struct{}, together)
	opened := make([]*stream, count)
	silent := f.each(count, func(number int, deadline <-chan struct{}) bool {
		slots <- struct{}{}
		defer func() { <-slots }()
		opened[number] = f.open()
		return opened[number].await(1, deadline)
	})
	f.streams = append(f.streams, opened...)
	f.expected = 1
	return f.report(begun, silent)
}

func (f *fleet) expect() report {
	begun := now()
	f.expected++
	silent := f.each(len(f.streams), func(number int, deadline <-chan struct{}) bool {
		return f.streams[number].await(f.expected, deadline)
	})
	return f.report(begun, silent)
}

func (f *fleet) churn(count, together int) report {
	begun := now()
	slots := make(chan struct{}, together)
	silent := f.each(count, func(_ int, deadline <-chan struct{}) bool {
		slots <- struct{}{}
		defer func() { <-slots }()
		s := f.open()
		defer s.stop()
		return s.await(1, deadline)
	})
	return f.report(begun, silent)
}

func (f *fleet) close() report {
	begun := now()
	for _, s := range f.streams {
		s.stop()
	}
	f.streams = nil
	return f.report(begun, 0)
}

// each does work for all numbers at once, and returns for how many it failed.
func (f *fleet) each(count int, work func(int, <-chan struct{}) bool) int {
	ctx, cancel := context.WithTimeout(context.Background(), f.timeout)
	defer cancel()
	var failed atomic.Int64
	var working sync.WaitGroup
	for number := range count {
		working.Add(1)
		go func() {
			defer working.Done()
			if !work(number, ctx.Done()) {
				failed.Add(1)
			}
		}()
	}
	working.Wait()
	return int(failed.Load())
}

func (f *fleet) report(begun int64, silent int) report {
	r := report{Begun: begun, Silent: silent, Lost: f.lost.Load()}
	for _, s := range f.streams {
		s.mutex.Lock()
		if s.answers > 0 && (r.First == 0 || s.at < r.First) {
			r.First = s.at
		}
		r.Last = max(r.Last, s.at)
		r.Bytes = s.size
		if s.answers > f.expected {
			r.Ahead++
		}
		s.mutex.Unlock()
	}
	if problem, ok := f.problem.Load().(string); ok {
		r.Problem = problem
	}
	return r
}

func main() {
	address := flag.String("address", "", "host:port of the server")
	protocol := flag.String("protocol", "sotw", "sotw or delta")
	name := flag.String("name", "", "resource to subscribe to")
	node := flag.String("node", "", "file with the node as JSON")
	timeout := flag.Duration("timeout", time.Minute, "longest wait for an answer")
	flag.Parse()

	chosen, ok := variants[*protocol]
	if !ok {
		log.Fatalf("-protocol %s is neither sotw nor delta", *protocol)
	}
	f := &fleet{address: *address, variant: chosen, timeout: *timeout}
	f.names = appendBytes(nil, chosen.names, []byte(*name))
	f.first = appendBytes(nil, chosen.node, nodeBytes(*node))
	f.first = append(f.first, f.names...)
	f.first = appendBytes(f.first, chosen.typeURL, []byte(typeURL))

	answer(map[string]int{"bytes": len(f.first)})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var command string
		var count, together int
		_, _ = fmt.Sscan(lines.Text(), &command, &count, &together)
		switch command {
		case "open":
			answer(f.openMany(count, together))
		case "expect":
			answer(f.expect())
		case "churn":
			answer(f.churn(count, together))
		case "close":
			answer(f.close())
		default:
			log.Fatalf("unknown command %q", lines.Text())
		}
	}
}

func nodeBytes(path string) []byte {
	text, err := os.ReadFile(path)
	check(err)
	node := &core.Node{}
	check(protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, node))
	encoded, err := proto.Marshal(node)
	check(err)
	return encoded
}

func appendBytes(message []byte, number protowire.Number, value []byte) []byte {
	message = protowire.AppendTag(message, number, protowire.BytesType)
	return protowire.AppendBytes(message, value)
}

// now returns the kernel's monotonic time in nanoseconds, which other processes read as well.
func now() int64 {
	var at unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_MONOTONIC, &at))
	return at.Nano()
}

func answer(document any) {
	text, err := json.Marshal(document)
	check(err)
	fmt.Println(string(text))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

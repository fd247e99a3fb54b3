// Command server is go-control-plane with one service in one of its caches, steered over standard input.
//
// Its first line of output is {"port": ...}. Each line of input is answered by one line of JSON: `change` changes the
// weight of an endpoint, `collect` returns unused memory to the kernel.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"runtime/debug"
)

// store is a cache that has one service.
type store interface {
	set(assignment *endpoint.ClusterLoadAssignment, version string) error
}

type linear struct{ *cache.LinearCache }

func (l linear) set(assignment *endpoint.ClusterLoadAssignment, _ string) error {
	return l.UpdateResource(assignment.ClusterName, assignment)
}

// everyone gives all nodes the same snapshot.
type everyone struct{}

func (everyone) ID(*core.Node) string { return "everyone" }

type snapshot struct{ cache.SnapshotCache }

func (s snapshot) set(assignment *endpoint.ClusterLoadAssignment, version string) error {
	made, err := cache.NewSnapshot(version, map[resource.Type][]types.Resource{resource.EndpointType: {assignment}})
	if err != nil {
		return err
	}
	return s.SetSnapshot(context.Background(), everyone{}.ID(nil), made)
}

func main() {
	kind := flag.String("cache", "linear", "linear or snapshot")
	path := flag.String("assignment", "", "file with the ClusterLoadAssignment as JSON")
	flag.Parse()

	text, err := os.ReadFile(*path)
	check(err)
	assignment := &endpoint.ClusterLoadAssignment{}
	check(protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(text, assignment))

	var source cache.Cache
	var contents store
	switch *kind {
	case "linear":
		made := cache.NewLinearCache(resource.EndpointType)
		source, contents = made, linear{made}
	case "snapshot":
		made := cache.NewSnapshotCache(true, everyone{}, nil)
		source, contents = made, snapshot{made}
	default:
		log.Fatalf("-cache %s is neither linear nor snapshot", *kind)
	}
	check(contents.set(assignment, "1"))

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	// The number of streams on a connection is the only option that go-control-plane's example sets for speed.
	streams := grpc.NewServer(grpc.MaxConcurrentStreams(1_000_000))
	discovery.RegisterAggregatedDiscoveryServiceServer(streams, server.NewServer(context.Background(), source, nil))
	go func() { check(streams.Serve(listener)) }()

	answer(map[string]int64{"port": int64(listener.Addr().(*net.TCPAddr).Port)})
	lines := bufio.NewScanner(os.Stdin)
	for number := 2; lines.Scan(); number++ {
		switch lines.Text() {
		case "change":
			// A cache shares what it was given with its readers, so a change is a resource of its own.
			changed := proto.Clone(assignment).(*endpoint.ClusterLoadAssignment)
			first := changed.Endpoints[0].LbEndpoints[0]
			first.LoadBalancingWeight = wrapperspb.UInt32(uint32(number))
			at := now()
			check(contents.set(changed, strconv.Itoa(number)))
			answer(map[string]int64{"at": at})
		case "collect":
			debug.FreeOSMemory()
			answer(map[string]int64{})
		default:
			log.Fatalf("unknown command %q", lines.Text())
		}
	}
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

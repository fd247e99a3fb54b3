// Command proxyless is grpc-go's client of xds:/// targets, and servers that it may find.
//
// It takes the lines that tests/harness/proxyless.py writes: a JSON list of a command and its arguments, each answered by
// a line of JSON.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	_ "google.golang.org/grpc/xds"
)

const (
	service = "headcount.test.Where"
	method  = "Am"
)

type rpc struct {
	Status  string  `json:"status"`
	Said    string  `json:"said"`
	Seconds float64 `json:"seconds"`
}

var (
	servers  = map[string]*grpc.Server{}
	channels = map[string]*grpc.ClientConn{}
)

func serve() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	endpoint := listener.Addr().String()
	handler := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		if err := decode(&emptypb.Empty{}); err != nil {
			return nil, err
		}
		return wrapperspb.String(endpoint), nil
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: service,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: method, Handler: handler}},
	}, nil)
	servers[endpoint] = server
	go func() { check(server.Serve(listener)) }()
	return endpoint
}

func call(target string, timeout float64, wait bool) rpc {
	channel, ok := channels[target]
	if !ok {
		made, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		check(err)
		channel, channels[target] = made, made
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(timeout*float64(time.Second)))
	defer cancel()
	begun, answer := time.Now(), &wrapperspb.StringValue{}
	path := "/" + service + "/" + method
	err := channel.Invoke(ctx, path, &emptypb.Empty{}, answer, grpc.WaitForReady(wait))
	ended := rpc{Status: "OK", Said: answer.Value, Seconds: time.Since(begun).Seconds()}
	if err != nil {
		ended.Status, ended.Said = name(status.Code(err)), status.Convert(err).Message()
	}
	return ended
}

// name returns a code as grpcio has it, such as DEADLINE_EXCEEDED.
func name(code codes.Code) string {
	var spelt strings.Builder
	for number, letter := range code.String() {
		if number > 0 && letter >= 'A' && letter <= 'Z' {
			spelt.WriteByte('_')
		}
		spelt.WriteRune(letter)
	}
	return strings.ToUpper(spelt.String())
}

func flood(targets []any, seconds float64) map[string]int {
	counts := map[string]int{}
	until := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(until) {
		for _, target := range targets {
			counts[call(target.(string), 5, false).Status]++
		}
	}
	return counts
}

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var words []any
		check(json.Unmarshal(lines.Bytes(), &words))
		var answer any
		switch words[0] {
		case "serve":
			answer = serve()
		case "stop":
			servers[words[1].(string)].Stop()
			delete(servers, words[1].(string))
		case "call":
			answer = call(words[1].(string), words[2].(float64), words[3].(bool))
		case "flood":
			answer = flood(words[1].([]any), words[2].(float64))
		default:
			log.Fatalf("unknown command %v", words[0])
		}
		text, err := json.Marshal(answer)
		check(err)
		_, err = os.Stdout.Write(append(text, '\n'))
		check(err)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

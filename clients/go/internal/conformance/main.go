// The client as the tests drive it: a request a line on standard input, an answer a line on standard output.
// clients/python/tests/conformance.py says what they hold.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	"modelready"
	v1 "modelready/v1"
)

type request struct {
	Target, Token, Source, Durability string
	Timeout                           float64
	CAFile                            string  `json:"ca_file"`
	CancelAfter                       float64 `json:"cancel_after"` // seconds after which the caller gives up
	Event                             json.RawMessage
}

func main() {
	log.SetFlags(0)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 8<<20)
	publishers := map[string]*modelready.Publisher{}
	for lines.Scan() {
		var asked request
		event := &v1.ModelReadyToDeploy{}
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			log.Fatal(err)
		}
		if err := protojson.Unmarshal(asked.Event, event); err != nil {
			log.Fatal(err)
		}
		asked.Event = nil
		key := fmt.Sprint(asked)
		if publishers[key] == nil {
			publishers[key] = open(asked)
		}
		ctx, cancel := context.WithCancel(context.Background())
		if asked.CancelAfter > 0 {
			time.AfterFunc(time.Duration(asked.CancelAfter*float64(time.Second)), cancel)
		}
		receipt, err := publishers[key].Publish(ctx, event)
		cancel()
		answer := map[string]any{"error": describe(err)}
		if err == nil {
			raw, _ := protojson.Marshal(receipt)
			answer = map[string]any{"receipt": json.RawMessage(raw)}
		}
		line, _ := json.Marshal(answer)
		fmt.Println(string(line))
	}
}

func open(asked request) *modelready.Publisher {
	options := modelready.Options{
		Token:      asked.Token,
		Source:     asked.Source,
		Durability: v1.Durability(v1.Durability_value[asked.Durability]),
		Timeout:    time.Duration(asked.Timeout * float64(time.Second)),
	}
	if asked.CAFile != "" {
		authority, err := os.ReadFile(asked.CAFile)
		if err != nil {
			log.Fatal(err)
		}
		options.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		options.TLS.RootCAs.AppendCertsFromPEM(authority)
	}
	publisher, err := modelready.New(asked.Target, options)
	if err != nil {
		log.Fatal(err)
	}
	return publisher
}

// kinds are the sentinel errors by the names of Python's classes, the narrower one first.
var kinds = []struct {
	err  error
	name string
}{
	{modelready.ErrOutcomeUnknown, "OutcomeUnknown"},
	{modelready.ErrInvalidEvent, "InvalidEvent"},
	{modelready.ErrUnavailable, "Unavailable"},
	{modelready.ErrDeadlineExceeded, "DeadlineExceeded"},
	{modelready.ErrResourceExhausted, "ResourceExhausted"},
	{modelready.ErrSetupFault, "SetupFault"},
	{modelready.ErrUnauthenticated, "Unauthenticated"},
	{modelready.ErrPermissionDenied, "PermissionDenied"},
}

func describe(err error) map[string]any {
	var failure, cause *modelready.Error
	if !errors.As(err, &failure) {
		return nil
	}
	answer := map[string]any{
		"kind": "PublishError", "code": name(failure.Code), "reason": failure.Reason, "message": failure.Message,
		"event_id": failure.EventID, "retry_after": nil, "cause": nil, "violations": [][]string{},
	}
	for _, kind := range kinds {
		if failure.Is(kind.err) {
			answer["kind"] = kind.name
			break
		}
	}
	if failure.RetryAfter > 0 {
		answer["retry_after"] = failure.RetryAfter.Seconds()
	}
	if errors.As(failure.Unwrap(), &cause) {
		answer["cause"] = name(cause.Code)
	}
	for _, violation := range failure.Violations {
		answer["violations"] = append(answer["violations"].([][]string), []string{violation.Field, violation.Description})
	}
	return answer
}

// name is a code's as the .proto of google.rpc has it.
func name(code codes.Code) string {
	if code == codes.Canceled {
		return "CANCELLED"
	}
	var words strings.Builder
	for i, letter := range code.String() {
		if i > 0 && letter >= 'A' && letter <= 'Z' {
			words.WriteByte('_')
		}
		words.WriteRune(letter)
	}
	return strings.ToUpper(words.String())
}

// Package modelready publishes events through the sidecar. It follows the same rules as the Python client;
// clients/conformance.json lists them as cases, and each client passes them all.
package modelready

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	v1 "modelready/v1"
)

// DefaultTimeout is how long Publish may take, its retries included.
const DefaultTimeout = 5 * time.Second

// maxEventBytes is larger than any valid event.
const maxEventBytes = 1 << 20

// Options of a Publisher. The zero value is right for a sidecar on loopback that asks for no token.
type Options struct {
	// Token is the sidecar's SIDECAR_API_TOKEN.
	Token string
	// TLS is how to trust the sidecar and, with a certificate, to be known to it. Nil: the connection is in the clear.
	TLS *tls.Config
	// Timeout is how long one Publish may take, its retries included. 0: DefaultTimeout.
	Timeout time.Duration
	// Durability is the least to accept for an acknowledgement. The zero value is the sidecar's default.
	Durability v1.Durability
	// Source names the registry in events that do not name it themselves.
	Source string
	// DialOptions come after the Publisher's own, e.g. a stats handler that traces the calls.
	DialOptions []grpc.DialOption
}

// Publisher publishes events. Any number of goroutines may share one.
type Publisher struct {
	options    Options
	connection *grpc.ClientConn
	stub       v1.PublisherServiceClient
}

// New returns a Publisher for the sidecar at target, "host:port" or "unix:/path". It connects at the first call, and
// again when the sidecar comes back. The error says what is wrong with the options, without the token.
func New(target string, options Options) (*Publisher, error) {
	if strings.ContainsFunc(options.Token, func(r rune) bool { return r < '!' || r > '~' }) {
		return nil, errors.New("modelready: the token must be visible ASCII, without blanks or a line end")
	}
	if options.Timeout == 0 {
		options.Timeout = DefaultTimeout
	}
	connection, err := grpc.NewClient(target, dialOptions(options)...)
	if err != nil {
		return nil, fmt.Errorf("modelready: %w", err)
	}
	return &Publisher{options, connection, v1.NewPublisherServiceClient(connection)}, nil
}

// dialOptions let the connection be back within a second when the sidecar is. One whose packets vanish is given up
// five seconds after a ping; while nothing is called it is pinged every ten seconds.
func dialOptions(options Options) []grpc.DialOption {
	security := insecure.NewCredentials()
	if options.TLS != nil {
		security = credentials.NewTLS(options.TLS)
	}
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(security),
		grpc.WithNoProxy(), // the sidecar is a neighbour; a proxy is for the world outside
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(), // see retry.go
		grpc.WithIdleTimeout(0),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true,
		}),
	}, options.DialOptions...)
}

// Publish returns when the sidecar owns the event. Otherwise the error is an *Error, after what may succeed later was
// retried until the time was up: that of the options, or the context's if it ends before.
//
// The event is not changed: an id, a time and a source that it lacks are set in a copy, once for all attempts. The
// error's EventID is the id to publish the same event with again.
func (p *Publisher) Publish(ctx context.Context, event *v1.ModelReadyToDeploy) (*v1.Receipt, error) {
	whole := complete(event, p.options.Source)
	if size := proto.Size(whole); size > maxEventBytes {
		text := fmt.Sprintf("has %d bytes; the limit is %d", size, maxEventBytes)
		return nil, invalidEvent([]Violation{{"event", text}}, whole.EventId)
	}
	if _, err := proto.Marshal(whole); err != nil { // gRPC would say that the connection broke
		return nil, invalidEvent([]Violation{{"event", err.Error()}}, whole.EventId)
	}
	request := &v1.PublishRequest{Event: whole, Durability: p.options.Durability}
	ctx, cancel := context.WithTimeout(ctx, p.options.Timeout)
	defer cancel()
	if p.options.Token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.options.Token)
	}
	return withRetries(ctx, func() (*v1.Receipt, *Error) {
		response, err := p.stub.Publish(ctx, request)
		if err != nil {
			return nil, fromCall(ctx, err, whole.EventId)
		}
		return response.GetReceipt(), nil
	})
}

// Close closes the connection; calls under way fail.
func (p *Publisher) Close() error {
	return p.connection.Close()
}

// complete returns a copy of the event with what its retries need: an id and a time that no attempt changes.
func complete(event *v1.ModelReadyToDeploy, source string) *v1.ModelReadyToDeploy {
	whole := &v1.ModelReadyToDeploy{}
	proto.Merge(whole, event)
	if whole.EventId == "" {
		whole.EventId = NewEventID()
	}
	if whole.Source == "" {
		whole.Source = source
	}
	if whole.OccurredAt == nil {
		whole.OccurredAt = timestamppb.Now()
	}
	return whole
}

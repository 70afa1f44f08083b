// A deployer: it gets every model version that is ready, at least once. ../../consuming.md describes the format.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	group       = "deployer" // a group of its own for each service; its processes share the events
	maxAttempts = 3
	block       = 2 * time.Second // the longest wait for an event, and so for the end after SIGTERM
)

type event struct {
	EventID  string                         `json:"event_id"`
	Model    struct{ Name, Version string } `json:"model"`
	Artifact struct{ URI string }           `json:"artifact"`
}

// deploy is where your work goes. It may run again for an event that it has handled, so make it idempotent.
func deploy(e event) error {
	if !strings.HasPrefix(e.Artifact.URI, "s3://") {
		return fmt.Errorf("cannot fetch %s", e.Artifact.URI)
	}
	fmt.Printf("deploying %s %s from %s, event %s\n", e.Model.Name, e.Model.Version, e.Artifact.URI, e.EventID)
	return nil
}

type consumer struct {
	redis               *redis.Client
	stream, deadLetters string
	name                string        // unique in the group
	claimIdle           time.Duration // longer than any deploy takes: after it another consumer takes the event over
	cursor              string
	claimAt             time.Time
}

func main() {
	stopping, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	options, err := optionsFromEnv()
	if err != nil {
		log.Fatal(err)
	}
	idle, err := strconv.Atoi(env("CLAIM_IDLE_MS", "60000"))
	if err != nil {
		log.Fatal("CLAIM_IDLE_MS: ", err)
	}
	host, _ := os.Hostname()
	queue := env("QUEUE_NAME", "model-ready")
	c := &consumer{
		redis:       redis.NewClient(options),
		stream:      "{" + queue + "}:events",
		deadLetters: "{" + queue + "}:dead-letters",
		name:        fmt.Sprintf("%s-%d", host, os.Getpid()),
		claimIdle:   time.Duration(idle) * time.Millisecond,
		cursor:      "0-0",
	}
	for stopping.Err() == nil {
		if err := c.consume(stopping); err != nil {
			log.Printf("waiting for Redis: %v", err)
			select {
			case <-stopping.Done():
			case <-time.After(time.Second):
			}
		}
	}
	c.leave()
}

// Commands get a context that nothing cancels: if a reply is dropped, its event waits until it is claimed.
var whole = context.Background()

// consume handles events until it is to stop, and finishes the current one.
func (c *consumer) consume(stopping context.Context) error {
	err := c.redis.XGroupCreateMkStream(whole, c.stream, group, "0").Err()
	if err != nil && !strings.HasPrefix(err.Error(), "BUSYGROUP") {
		return err
	}
	for stopping.Err() == nil {
		entries, err := c.next()
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if err := c.handle(entry); err != nil {
				return err
			}
		}
	}
	return nil
}

// next takes one event: first those that failed or whose consumer died, when they have been idle long enough; then new ones.
func (c *consumer) next() ([]redis.XMessage, error) {
	if time.Now().After(c.claimAt) {
		entries, cursor, err := c.redis.XAutoClaim(whole, &redis.XAutoClaimArgs{Stream: c.stream, Group: group,
			Consumer: c.name, MinIdle: c.claimIdle, Start: c.cursor, Count: 1}).Result()
		if errors.Is(err, redis.Nil) { // Redis 6.2, of an entry that was deleted
			cursor = "0-0"
		} else if err != nil {
			return nil, err
		}
		c.cursor = cursor
		if len(entries) > 0 || cursor != "0-0" {
			return entries, nil
		}
		c.claimAt = time.Now().Add(c.claimIdle / 4)
	}
	streams, err := c.redis.XReadGroup(whole, &redis.XReadGroupArgs{Group: group, Consumer: c.name,
		Streams: []string{c.stream, ">"}, Count: 1, Block: min(block, c.claimIdle)}).Result()
	if errors.Is(err, redis.Nil) { // nothing new
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return streams[0].Messages, nil
}

func (c *consumer) handle(entry redis.XMessage) error {
	only, replayed := entry.Values["replay_group"]
	if len(entry.Values) == 0 || replayed && only != group { // deleted; or a dead letter's replay to another group
		return c.redis.XAck(whole, c.stream, group, entry.ID).Err()
	}
	e, err := decode(entry.Values)
	if err != nil {
		return c.deadLetter(entry, "UNDECODABLE", err, 1)
	}
	if err = deploy(e); err == nil {
		return c.redis.XAck(whole, c.stream, group, entry.ID).Err()
	}
	log.Printf("event %s: %v", e.EventID, err)
	pending, failure := c.redis.XPendingExt(whole, &redis.XPendingExtArgs{Stream: c.stream, Group: group,
		Start: entry.ID, End: entry.ID, Count: 1}).Result()
	if failure != nil || len(pending) == 0 || pending[0].RetryCount < maxAttempts {
		return failure // it stays pending, and comes again when it has been idle long enough
	}
	return c.deadLetter(entry, "HANDLER_FAILED", err, pending[0].RetryCount)
}

// deadLetter writes the entry as a dead letter and acknowledges it, both or neither.
func (c *consumer) deadLetter(entry redis.XMessage, reason string, cause error, attempts int64) error {
	now := strconv.FormatInt(time.Now().UnixMilli(), 10)
	first, _, _ := strings.Cut(entry.ID, "-")
	fields := map[string]any{}
	for name, value := range entry.Values {
		if name != "replay_group" {
			fields[name] = value
		}
	}
	for name, value := range map[string]any{"dl_reason": reason, "dl_detail": cause.Error(), "dl_attempts": attempts,
		"dl_first_at": first, "dl_last_at": now, "dl_origin": "group:" + group, "dl_entry_id": entry.ID} {
		fields[name] = value
	}
	_, err := c.redis.TxPipelined(whole, func(pipe redis.Pipeliner) error {
		pipe.XAdd(whole, &redis.XAddArgs{Stream: c.deadLetters, Values: fields})
		pipe.XAck(whole, c.stream, group, entry.ID)
		return nil
	})
	return err
}

// leave removes this consumer's name, unless an event is still pending for it.
func (c *consumer) leave() {
	pending, err := c.redis.XPendingExt(whole, &redis.XPendingExtArgs{Stream: c.stream, Group: group, Start: "-",
		End: "+", Count: 1, Consumer: c.name}).Result()
	if err == nil && len(pending) == 0 {
		c.redis.XGroupDelConsumer(whole, c.stream, group, c.name)
	}
}

func decode(fields map[string]any) (e event, err error) {
	data, _ := fields["data"].(string)
	switch fields["content-type"] {
	case "application/json":
		err = json.Unmarshal([]byte(data), &e)
	case "application/protobuf":
		e, err = fromProtobuf([]byte(data))
	default:
		err = fmt.Errorf("content-type %v is not known", fields["content-type"])
	}
	if err == nil && (e.EventID == "" || e.Model.Name == "" || e.Artifact.URI == "") {
		err = errors.New("data is no complete event")
	}
	return e, err
}

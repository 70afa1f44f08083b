package modelready

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"
)

// NewEventID returns a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random bits, so that ids sort by time.
func NewEventID() string {
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(time.Now().UnixMilli())<<16)
	rand.Read(id[6:]) // never fails
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

package ingest

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
	"github.com/kadomori/kadomori/controlplane/internal/event"
	eventv1 "github.com/kadomori/kadomori/proto/gen/kadomori/event/v1"
)

const (
	// maxDecoded bounds a message after decompression: 256 events of 32 KiB.
	maxDecoded = 8 << 20
	// maxEvents of one message; the contract says 256, a box that folds differently is no reason to lose anything.
	maxEvents = 4096
)

// message is one message of the stream, decoded.
type message struct {
	msg   jetstream.Msg
	src   event.Source
	items []item
	// letters are what could not be read: the whole message, or events of it.
	letters  []letter
	refusals int // by the database, of this message alone
}

// item is an event that can be stored, or with bad set, one that can't but has a number.
type item struct {
	row event.Row
	e   *eventv1.Event
	bad string
}

// letter is a row of dead_letter.
type letter struct {
	clinic, appliance int32 // 0: the subject names none
	subject, reason   string
	body              []byte
}

type decoder struct{ zstd *zstd.Decoder }

func newDecoder() (*decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxDecoded), zstd.WithDecoderMaxWindow(maxDecoded), zstd.WithDecoderConcurrency(2))
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	return &decoder{zstd: z}, nil
}

// decode never fails: what can't be read becomes a letter.
func (in *Ingest) decode(m jetstream.Msg) (out *message) {
	out = &message{msg: m}
	out.src.Received = in.now().UTC()
	clinic, appliance, err := ids(m.Subject())
	defer func() {
		// One message must not stop all others, whatever a library makes of it.
		if p := recover(); p != nil {
			in.log.Error("message made the decoder panic", "subject", m.Subject(), "err", p)
			out.items = nil
			out.refuse(m, clinic, appliance, fmt.Sprintf("panic: %v", p))
		}
	}()
	if err != nil {
		out.refuse(m, 0, 0, err.Error())
		return out
	}
	env, err := in.decoder.envelope(m.Data(), m.Headers().Get("Content-Encoding"))
	if err == nil {
		err = check(env, clinic, appliance)
	}
	if err != nil {
		out.refuse(m, clinic, appliance, err.Error())
		return out
	}
	out.src.Clinic, out.src.Appliance, out.src.Stream = clinic, appliance, [16]byte(env.GetStreamId())
	if env.ClockOffsetMs != nil {
		ms := int32(max(math.MinInt32, min(math.MaxInt32, env.GetClockOffsetMs())))
		out.src.ClockOffset = &ms
	}
	out.items = make([]item, 0, len(env.GetEvents()))
	for i, e := range env.GetEvents() {
		row, err := event.New(out.src, e)
		it := item{row: row, e: e}
		if err != nil {
			reason := fmt.Sprintf("event %d of the message: %v", i, err)
			body, _ := proto.Marshal(e) // it was unmarshalled a moment ago
			out.letters = append(out.letters, letter{clinic, appliance, m.Subject(), reason, body})
			if row.Seq == 0 || row.Seq > event.MaxSeq {
				continue // no number to remember it by
			}
			it.bad = reason
		}
		out.items = append(out.items, it)
	}
	return out
}

func (m *message) refuse(msg jetstream.Msg, clinic, appliance int32, reason string) {
	m.letters = append(m.letters, letter{clinic, appliance, msg.Subject(), reason, msg.Data()})
}

// ids reads evt.<clinic>.<appliance>.
func ids(subject string) (clinic, appliance int32, err error) {
	rest, ok := strings.CutPrefix(subject, broker.SubjectPrefix)
	c, a, found := strings.Cut(rest, ".")
	if !ok || !found {
		return 0, 0, fmt.Errorf("subject is not %s<clinic>.<appliance>", broker.SubjectPrefix)
	}
	for _, f := range []struct {
		text string
		id   *int32
	}{{c, &clinic}, {a, &appliance}} {
		n, err := strconv.ParseInt(f.text, 10, 32)
		if err != nil || n <= 0 || strconv.FormatInt(n, 10) != f.text {
			return 0, 0, fmt.Errorf("subject names no clinic and appliance: %q is no id", f.text)
		}
		*f.id = int32(n)
	}
	return clinic, appliance, nil
}

func (d *decoder) envelope(body []byte, encoding string) (*eventv1.Envelope, error) {
	switch encoding {
	case "":
	case "zstd":
		var err error
		if body, err = d.zstd.DecodeAll(body, nil); err != nil {
			return nil, fmt.Errorf("decompress: %w", err)
		}
	default:
		return nil, fmt.Errorf("content encoding %q is unknown", event.Clean(encoding, 40))
	}
	if len(body) > maxDecoded {
		return nil, fmt.Errorf("%d bytes, at most %d are taken", len(body), maxDecoded)
	}
	env := &eventv1.Envelope{}
	if err := proto.Unmarshal(body, env); err != nil {
		return nil, fmt.Errorf("read envelope: %w", err)
	}
	return env, nil
}

func check(env *eventv1.Envelope, clinic, appliance int32) error {
	switch n := len(env.GetEvents()); {
	case env.GetClinicId() != clinic || env.GetApplianceId() != appliance:
		return fmt.Errorf("envelope says clinic %d, appliance %d, the subject another", env.GetClinicId(), env.GetApplianceId())
	case len(env.GetStreamId()) != 16:
		return fmt.Errorf("stream id of %d bytes, it has 16", len(env.GetStreamId()))
	case n == 0:
		return errors.New("no events")
	case n > maxEvents:
		return fmt.Errorf("%d events, at most %d are taken", n, maxEvents)
	}
	return nil
}

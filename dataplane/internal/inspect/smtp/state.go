package smtp

import (
	"crypto/md5" //nolint:gosec // email.body_md5 is defined with MD5
	"encoding/hex"

	"github.com/kadomori/kadomori/dataplane/internal/inspect"
	"github.com/kadomori/kadomori/dataplane/internal/inspect/mime"
	"github.com/kadomori/kadomori/dataplane/internal/rule"
)

// Tx is one mail, from the first command to the answer to its end.
type Tx struct {
	inspect.TxBase
	helo, from []byte
	to         [][]byte
	commands   [][]byte
	msg        mime.Message
	files      []*inspect.File
	done       [2]bool
	sealed     bool
	events     []rule.Event
}

var (
	eventLongCommand = rule.EventID("smtp.max_command_line_len_exceeded")
	eventDuplicate   = rule.EventID("smtp.duplicate_fields")
)

func (t *Tx) begin(id uint64, now int64, p *Parser) {
	t.ResetBase(id, now)
	base := t.TxBase
	*t = Tx{TxBase: base, helo: p.helo}
}

func (t *Tx) raise(e rule.Event) {
	if len(t.events) < 16 {
		t.events = append(t.events, e)
	}
}

// Events are those raised.
func (t *Tx) Events() []rule.Event { return t.events }

func (t *Tx) command(line []byte) {
	if len(t.commands) < 64 {
		t.commands = append(t.commands, append([]byte(nil), line...))
	}
}

func (t *Tx) seal() { t.sealed = true }

func (t *Tx) finish(truncated bool) {
	if t.done[0] && t.done[1] {
		return
	}
	if t.msg.Begun && !t.msg.Ended {
		t.msg.End(truncated)
	}
	t.sealed = true
	t.done = [2]bool{true, true}
	t.Ready = len(t.from) > 0 || t.msg.Begun || len(t.helo) > 0 && t.ID == 0
	if !t.Ready { // nothing but QUIT and the like: no mail
		t.Ready, t.Logged = true, true
	}
}

// App is SMTP.
func (t *Tx) App() rule.App { return rule.AppSMTP }

// Complete says whether a direction is.
func (t *Tx) Complete(toServer bool) bool {
	if toServer {
		return t.done[0]
	}
	return t.done[1]
}

// Files are the attachments.
func (t *Tx) Files() []*inspect.File { return t.files }

// Buffer gives envelope, header fields and attachments.
func (t *Tx) Buffer(b rule.Buffer, toServer bool, n int) rule.Value {
	if !toServer {
		return rule.Value{State: rule.Absent}
	}
	if inspect.IsFileBuffer(b) {
		return inspect.FileBuffer(t.files, t.sealed, b, toServer, n)
	}
	one := func(v []byte, final bool) rule.Value {
		switch {
		case n > 0:
		case len(v) > 0:
			return rule.Value{Data: v, State: rule.Done}
		case !final:
			return rule.Value{State: rule.NotYet}
		}
		return rule.Value{State: rule.Absent}
	}
	many := func(v [][]byte, final bool) rule.Value {
		switch {
		case n < len(v):
			return rule.Value{Data: v[n], State: rule.Done}
		case !final:
			return rule.Value{State: rule.NotYet}
		}
		return rule.Value{State: rule.Absent}
	}
	head := t.sealed
	switch b {
	case rule.BufSMTPHelo:
		return one(t.helo, t.done[0])
	case rule.BufSMTPMailFrom:
		return one(t.from, t.done[0])
	case rule.BufSMTPRcptTo:
		return many(t.to, t.done[0])
	case rule.BufEmailFrom:
		return one(t.msg.From, head)
	case rule.BufEmailTo:
		return one(first(t.msg.To), head)
	case rule.BufEmailCc:
		return one(first(t.msg.Cc), head)
	case rule.BufEmailSubject:
		return one(t.msg.Subject, head)
	case rule.BufEmailDate:
		return one(t.msg.Date, head)
	case rule.BufEmailMessageID:
		return one(t.msg.ID, head)
	case rule.BufEmailXMailer:
		return one(t.msg.XMailer, head)
	case rule.BufEmailURL:
		return many(t.msg.URLs, head)
	case rule.BufEmailReceived:
		return many(t.msg.Received, head)
	case rule.BufEmailCommand:
		return many(t.commands, t.done[0])
	case rule.BufEmailBodyMD5:
		if len(t.files) > 0 && n == 0 && t.sealed {
			sum := md5.Sum(t.files[0].Data()) //nolint:gosec // email.body_md5 is defined with MD5
			return rule.Value{Data: []byte(hex.EncodeToString(sum[:])), State: rule.Done}
		}
	default:
	}
	return rule.Value{State: rule.Absent}
}

func first(v [][]byte) []byte {
	if len(v) == 0 {
		return nil
	}
	return v[0]
}

// Number gives the sizes of attachments.
func (t *Tx) Number(k rule.Number, toServer bool, n int) (uint64, rule.State) {
	if k == rule.NumFileSize && toServer {
		return inspect.FileNumber(t.files, t.sealed, toServer, n)
	}
	return 0, rule.Absent
}

// EVEType is "smtp".
func (t *Tx) EVEType() string { return "smtp" }

func appendList(b []byte, key string, v [][]byte) []byte {
	if len(v) == 0 {
		return b
	}
	b = append(inspect.AppendKey(b, key), '[')
	for i, s := range v {
		if i > 0 {
			b = append(b, ',')
		}
		b = inspect.AppendJSON(b, s)
	}
	return append(b, ']')
}

// AppendEVE writes the envelope.
func (t *Tx) AppendEVE(b []byte) []byte {
	b = append(b, '{')
	b = inspect.AppendField(b, "helo", t.helo)
	b = inspect.AppendField(b, "mail_from", t.from)
	b = appendList(b, "rcpt_to", t.to)
	return append(b, '}')
}

// AppendExtra writes the email object beside it.
func (t *Tx) AppendExtra(b []byte) []byte {
	if !t.msg.Begun {
		return b
	}
	b = append(inspect.AppendKey(b, "email"), '{')
	status := "PARSE_DONE"
	if !t.msg.Ended {
		status = "BODY_STARTED"
	}
	b = inspect.AppendField(b, "status", []byte(status))
	b = inspect.AppendField(b, "from", t.msg.From)
	b = appendList(b, "to", t.msg.To)
	b = appendList(b, "cc", t.msg.Cc)
	b = appendList(b, "attachment", t.msg.Attachments)
	b = appendList(b, "url", t.msg.URLs)
	return append(b, '}')
}

// AppendFileExtra writes both beside fileinfo.
func (t *Tx) AppendFileExtra(b []byte) []byte {
	return t.AppendExtra(t.AppendEVE(inspect.AppendKey(b, "smtp")))
}

// Package backup writes the whole control plane into one encrypted file and brings it back.
//
// The programs kadomori-control backup and restore call it. The file is an age stream of a tar: manifest, keys and other small files, the
// database as pg_dump's custom format, and the broker's messages. Nothing leaves unencrypted, not even into a temporary file.
// Trap: after a restore to an older point the appliances send again what their spools still have; what lies between is gone, and the
// ledger is marked so that it is told as a gap with cause "restored".
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"filippo.io/age"
	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kadomori/kadomori/controlplane/internal/broker"
)

// format of the file; another layout needs another number.
const format = 1

const (
	// partSize of the database's parts: tar wants to know lengths beforehand.
	partSize = 4 << 20
	// maxFile of a small file: keys and configuration.
	maxFile = 16 << 20
)

// Config says what belongs to a control plane.
type Config struct {
	// OwnerDSN of the database: a role that sees all rows (the owner as superuser, or with BYPASSRLS). For Restore the database is empty.
	OwnerDSN string
	// Binaries is the folder of pg_dump and pg_restore; empty: found in PATH.
	Binaries string
	// Dir is the folder below which Files lie; only relative names go into the backup.
	Dir string
	// Files are names or folders relative to Dir: keys, configuration. Missing ones are left out.
	Files []string
	// JetStream is on a connection of account STORE; nil: the broker's messages are left out, appliances have them anyway.
	JetStream jetstream.JetStream
	Log       hclog.Logger
}

func (c *Config) defaults() error {
	if c.Log == nil {
		c.Log = hclog.NewNullLogger()
	}
	c.Log = c.Log.Named("backup")
	if c.OwnerDSN == "" {
		return errors.New("no DSN of the database's owner given")
	}
	return nil
}

// Manifest opens every backup.
type Manifest struct {
	Format   int       `json:"format"`
	MadeAt   time.Time `json:"made_at"`
	Schema   int64     `json:"schema"` // the newest migration
	Events   int64     `json:"events"` // in the ledgers
	Clinics  int64     `json:"clinics"`
	Messages uint64    `json:"messages"` // of the broker
}

// Write makes a backup of the running control plane. The database's part is one moment; messages that come later are still in the spools.
func Write(ctx context.Context, cfg Config, w io.Writer, to ...age.Recipient) (Manifest, error) {
	m := Manifest{Format: format, MadeAt: time.Now().UTC().Truncate(time.Second)}
	if err := cfg.defaults(); err != nil {
		return m, fmt.Errorf("write backup: %w", err)
	}
	if len(to) == 0 {
		return m, errors.New("write backup: no recipient given: a backup holds the keys of the fleet and is never written unencrypted")
	}
	if err := m.read(ctx, cfg.OwnerDSN); err != nil {
		return m, fmt.Errorf("write backup: %w", err)
	}
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return m, fmt.Errorf("write backup: encrypt: %w", err)
	}
	tw := tar.NewWriter(sealed)
	// The messages before the database: what is committed in between is dropped by the ledger when it comes again, the other order would
	// leave a hole.
	var messages bytes.Buffer
	if cfg.JetStream != nil {
		if m.Messages, err = readMessages(ctx, cfg.JetStream, &messages); err != nil {
			return m, fmt.Errorf("write backup: %w", err)
		}
	}
	raw, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, fmt.Errorf("write backup: %w", err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"manifest", func() error { return writeEntry(tw, "manifest.json", raw) }},
		{"files", func() error { return writeFiles(tw, cfg) }},
		{"messages", func() error { return writeParts(tw, "messages", &messages) }},
		{"database", func() error { return dump(ctx, tw, cfg) }},
		{"end", func() error { return writeEntry(tw, "end", []byte("complete\n")) }},
		{"archive", tw.Close},
		{"encryption", sealed.Close},
	} {
		if err := step.do(); err != nil {
			return m, fmt.Errorf("write backup: %s: %w", step.what, err)
		}
	}
	cfg.Log.Info("backup written", "clinics", m.Clinics, "events", m.Events, "messages", m.Messages)
	return m, nil
}

func (m *Manifest) read(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return conn.QueryRow(ctx, `SELECT (SELECT max(version_id) FROM goose_db_version), (SELECT count(*) FROM clinic),
		(SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM event_ledger, unnest(got) r)`).Scan(&m.Schema, &m.Clinics, &m.Events)
}

func writeEntry(tw *tar.Writer, name string, body []byte) error {
	if err := tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(body)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := tw.Write(body)
	return err
}

// writeParts cuts a stream of unknown length into entries name/000001 and so on.
func writeParts(tw *tar.Writer, name string, r io.Reader) error {
	buf := make([]byte, partSize)
	for i := 1; ; i++ {
		n, err := io.ReadFull(r, buf)
		if n > 0 {
			if err := writeEntry(tw, fmt.Sprintf("%s/%06d", name, i), buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func writeFiles(tw *tar.Writer, cfg Config) error {
	root, err := os.OpenRoot(cfg.Dir)
	if err != nil {
		if len(cfg.Files) == 0 {
			return nil
		}
		return err
	}
	defer func() { _ = root.Close() }()
	for _, f := range cfg.Files {
		err := filepath.WalkDir(filepath.Join(cfg.Dir, f), func(path string, d os.DirEntry, err error) error {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			name, err := filepath.Rel(cfg.Dir, path)
			if err != nil {
				return err
			}
			body, err := root.ReadFile(name)
			if err != nil {
				return err
			}
			if len(body) > maxFile {
				return fmt.Errorf("%s has %d bytes, at most %d belong into a backup", name, len(body), maxFile)
			}
			return writeEntry(tw, "files/"+filepath.ToSlash(name), body)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func dump(ctx context.Context, tw *tar.Writer, cfg Config) error {
	cmd, err := cfg.program(ctx, "pg_dump", "--format=custom", "--no-owner", "--compress=6")
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := writeParts(tw, "database", out); err != nil {
		return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("pg_dump: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

// program prepares one of PostgreSQL's programs; the password goes by the environment, where other users can't see it.
func (c Config) program(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	pc, err := pgx.ParseConfig(c.OwnerDSN)
	if err != nil {
		return nil, err
	}
	path := name
	if c.Binaries != "" {
		path = filepath.Join(c.Binaries, name)
	}
	cmd := exec.CommandContext(ctx, path, append(args, "--no-password")...)
	cmd.Env = append(os.Environ(), "PGHOST="+pc.Host, "PGPORT="+strconv.Itoa(int(pc.Port)), "PGUSER="+pc.User, "PGPASSWORD="+pc.Password, "PGDATABASE="+pc.Database)
	return cmd, nil
}

// message is one line of messages.
type message struct {
	Subject string      `json:"s"`
	Header  nats.Header `json:"h,omitempty"`
	Data    []byte      `json:"d"`
}

func readMessages(ctx context.Context, js jetstream.JetStream, w io.Writer) (uint64, error) {
	st, err := js.Stream(ctx, broker.Stream)
	if err != nil {
		return 0, fmt.Errorf("find stream: %w", err)
	}
	last := st.CachedInfo().State.LastSeq
	if st.CachedInfo().State.Msgs == 0 {
		return 0, nil
	}
	c, err := st.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return 0, fmt.Errorf("read stream: %w", err)
	}
	enc := json.NewEncoder(w)
	var n uint64
	for {
		batch, err := c.Fetch(256, jetstream.FetchMaxWait(time.Second))
		if err != nil {
			return n, fmt.Errorf("read stream: %w", err)
		}
		got, done := 0, false
		var failed error
		for m := range batch.Messages() { // to its end, so that nothing is left running behind it
			got++
			if failed != nil || done {
				continue
			}
			meta, err := m.Metadata()
			if err != nil {
				failed = fmt.Errorf("read stream: %w", err)
				continue
			}
			if m.Subject() != broker.CanarySubject {
				n++
				failed = enc.Encode(message{m.Subject(), m.Headers(), m.Data()})
			}
			done = meta.Sequence.Stream >= last
		}
		if failed != nil || done || got == 0 { // got nothing: the rest was purged meanwhile
			return n, failed
		}
	}
}

package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"

	"github.com/kadomori/kadomori/controlplane/internal/postgres"
)

// ErrNotEmpty means that the target has data already: a restore never writes over anything.
var ErrNotEmpty = errors.New("the target is not empty")

// Restore brings a backup into an empty database and folder. It is all or an error; after an error the target is thrown away and the
// restore begun again. Run it with the control plane stopped; its next start migrates the schema if this program is newer.
func Restore(ctx context.Context, cfg Config, r io.Reader, with ...age.Identity) (Manifest, error) {
	var m Manifest
	if err := cfg.defaults(); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	if err := empty(ctx, cfg.OwnerDSN); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	open, err := age.Decrypt(r, with...)
	if err != nil {
		return m, fmt.Errorf("restore: decrypt: %w", err)
	}
	x := &restorer{ctx: ctx, cfg: cfg}
	defer x.abort()
	tr := tar.NewReader(open)
	complete := false
	for i := 0; ; i++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return m, fmt.Errorf("restore: entry %d: %w", i, err)
		}
		switch {
		case i == 0 && h.Name == "manifest.json":
			err = m.parse(tr)
		case i == 0:
			err = errors.New("no manifest: this is no backup of ours")
		case h.Name == "end":
			complete = true
		case strings.HasPrefix(h.Name, "files/"):
			err = x.file(strings.TrimPrefix(h.Name, "files/"), tr)
		case strings.HasPrefix(h.Name, "messages/"):
			_, err = io.Copy(&x.messages, tr) //nolint:gosec // tar isn't compressed; the operator's own key opened it
		case strings.HasPrefix(h.Name, "database/"):
			err = x.database(tr)
		default:
			err = errors.New("an entry that this version doesn't know")
		}
		if err != nil {
			return m, fmt.Errorf("restore: %s: %w", h.Name, err)
		}
	}
	if !complete {
		return m, errors.New("restore: the backup breaks off in the middle")
	}
	if err := x.finish(); err != nil {
		return m, fmt.Errorf("restore: %w", err)
	}
	cfg.Log.Info("restored", "made_at", m.MadeAt, "clinics", m.Clinics, "events", m.Events)
	return m, nil
}

func (m *Manifest) parse(r io.Reader) error {
	if err := json.NewDecoder(io.LimitReader(r, 1<<16)).Decode(m); err != nil {
		return err
	}
	if m.Format != format {
		return fmt.Errorf("format %d; this version reads %d", m.Format, format)
	}
	return nil
}

func empty(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var table string
	err = conn.QueryRow(ctx, "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') LIMIT 1").Scan(&table)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
	case err != nil:
		return err
	default:
		return fmt.Errorf("%w: the database has table %s", ErrNotEmpty, table)
	}
	return postgres.MakeRoles(ctx, conn)
}

// restorer holds what is open while the archive is read.
type restorer struct {
	ctx      context.Context //nolint:containedctx // of one call of Restore
	cfg      Config
	messages bytes.Buffer
	in       *io.PipeWriter // of pg_restore
	done     chan error
}

// file writes one file; os.Root keeps names with ".." inside the folder. Existing files are not written over.
func (x *restorer) file(name string, r io.Reader) error {
	if err := os.MkdirAll(x.cfg.Dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(x.cfg.Dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: file %s is there", ErrNotEmpty, name)
	}
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, maxFile+1))
	if err == nil && n > maxFile {
		err = errors.New("too large for a file of a backup")
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// database hands a part to pg_restore, which runs from the first part to the end.
func (x *restorer) database(r io.Reader) error {
	if x.in == nil {
		cmd, err := x.cfg.program(x.ctx, "pg_restore", "--exit-on-error", "--no-owner", "--dbname=")
		if err != nil {
			return err
		}
		for i, a := range cmd.Args {
			if a == "--dbname=" { // from the environment; the flag says that there is a database to write to
				pc, err := pgx.ParseConfig(x.cfg.OwnerDSN)
				if err != nil {
					return err
				}
				cmd.Args[i] = "--dbname=" + pc.Database
			}
		}
		var said bytes.Buffer
		cmd.Stderr = &said
		pr, pw := io.Pipe()
		cmd.Stdin = pr
		if err := cmd.Start(); err != nil {
			return err
		}
		x.in, x.done = pw, make(chan error, 1)
		go func() {
			err := cmd.Wait()
			if err != nil {
				err = fmt.Errorf("pg_restore: %w: %s", err, bytes.TrimSpace(said.Bytes()))
			}
			_ = pr.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // a writer that waits is told
			x.done <- err
		}()
	}
	_, err := io.Copy(x.in, r)
	return err
}

func (x *restorer) abort() {
	if x.in != nil {
		_ = x.in.CloseWithError(errors.New("restore was given up"))
		if err := <-x.done; err != nil {
			x.cfg.Log.Debug("pg_restore ended", "err", err) // the reason is another one, told already
		}
	}
}

func (x *restorer) finish() error {
	if x.in == nil {
		return errors.New("the backup has no database")
	}
	err := errors.Join(x.in.Close(), <-x.done)
	x.in = nil
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(x.ctx, x.cfg.OwnerDSN)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(x.ctx)) }()
	// What came after this moment and was trimmed by the spools is gone; the sweep for gaps names it by this mark.
	if _, err := conn.Exec(x.ctx, "UPDATE event_ledger SET restored_top = upper(got) WHERE NOT isempty(got)"); err != nil {
		return fmt.Errorf("mark ledgers: %w", err)
	}
	if _, err := conn.Exec(x.ctx, `INSERT INTO audit_log (actor, action, target, reason) VALUES ('system:restore', 'control.restore', 'all clinics', 'restored from a backup')`); err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	return x.publish()
}

// publish gives the broker its messages back; those that the database has are dropped by the ledger.
func (x *restorer) publish() error {
	if x.cfg.JetStream == nil {
		return nil
	}
	dec := json.NewDecoder(bufio.NewReader(&x.messages))
	for {
		var m message
		err := dec.Decode(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read messages: %w", err)
		}
		m.Header.Del("Nats-Msg-Id")
		if _, err := x.cfg.JetStream.PublishMsg(x.ctx, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data}); err != nil {
			return fmt.Errorf("publish message: %w", err)
		}
	}
}

package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
)

// Roles of the database. Owner migrates and backs up; the others are described in migrations/0001_init.sql.
const (
	RoleOwner    = "kadomori"
	RoleApp      = "kadomori_app"
	RoleFleet    = "kadomori_fleet"
	RoleIngest   = "kadomori_ingest"
	RoleReporter = "kadomori_reporter"
)

// Database is the name of the database that a private server holds.
const Database = "kadomori"

// socketPathMax is the longest path of a Unix socket on Linux (sockaddr_un.sun_path is 108 bytes with the closing NUL).
const socketPathMax = 107

// PrivateConfig says where a private server lives.
type PrivateConfig struct {
	// Dir holds data/, run/ (socket), log and roles.json. Made when missing. When the program runs as root the server runs as the
	// user postgres, who must be able to enter every parent directory.
	Dir string
	// Settings are written into postgresql.conf over our defaults, such as {"fsync": "off"} in tests. Optional.
	Settings map[string]string
	// Unwatched leaves the server alone once it runs: for tests, whose process ends without Stop.
	Unwatched bool
	Log       hclog.Logger
}

// PrivateServer is a PostgreSQL server that belongs to this program: started from the Debian package, reached over a Unix socket only.
type PrivateServer struct {
	dir, bin, socket string
	attr             *syscall.SysProcAttr
	secrets          map[string]string
	log              hclog.Logger

	stopWatch context.CancelFunc
	watching  sync.WaitGroup
}

// watchEvery is how often the server is looked after; a postmaster that died is started again that fast.
const watchEvery = time.Second

// Private starts the private server in cfg.Dir, making its cluster first when there is none. A server that an earlier process
// left running is adopted. Until Stop the server is looked after: one that dies, by a kill or for want of memory, is started again. A cluster of another major version than the installed binaries is refused with the command that upgrades it.
func Private(ctx context.Context, cfg PrivateConfig) (*PrivateServer, error) {
	if cfg.Dir == "" {
		return nil, errors.New("start private postgres: no directory given")
	}
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("start private postgres: %w", err)
	}
	s := &PrivateServer{dir: dir, log: cfg.Log.Named("postgres")}
	if s.bin, err = newestBinaries(); err != nil {
		return nil, fmt.Errorf("start private postgres: %w", err)
	}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("start private postgres: %w", err)
	}
	fresh := false
	if _, err := os.Stat(s.path("data", "PG_VERSION")); errors.Is(err, os.ErrNotExist) {
		fresh = true
		if err := s.initialise(ctx); err != nil {
			return nil, fmt.Errorf("start private postgres: %w", err)
		}
	} else if err := s.checkVersion(); err != nil {
		return nil, fmt.Errorf("start private postgres: %w", err)
	}
	if err := s.loadSecrets(); err != nil {
		return nil, fmt.Errorf("start private postgres: %w", err)
	}
	if adopted, err := s.adopt(ctx); err != nil {
		return nil, fmt.Errorf("start private postgres: %w", err)
	} else if adopted {
		s.log.Info("adopted the running server", "dir", dir)
	} else {
		if err := s.configure(cfg.Settings); err != nil {
			return nil, fmt.Errorf("start private postgres: %w", err)
		}
		if out, err := s.run(ctx, "pg_ctl", "-D", s.path("data"), "-l", s.path("log"), "-w", "-t", "120", "start"); err != nil {
			return nil, fmt.Errorf("start private postgres: %w: %s%s", err, out, tail(s.path("log")))
		}
		s.log.Info("started", "dir", dir, "binaries", s.bin, "fresh", fresh)
	}
	if err := s.makeRoles(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start private postgres: %w", err), s.Stop())
	}
	if cfg.Unwatched {
		return s, nil
	}
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stopWatch = stop
	s.watching.Go(func() { s.watch(watch) })
	return s, nil
}

// watch starts the server again when it is gone. What is left of a killed one (its backends, its shared memory) may take a moment to end.
func (s *PrivateServer) watch(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.alive() {
			continue
		}
		out, err := s.run(ctx, "pg_ctl", "-D", s.path("data"), "-l", s.path("log"), "-w", "-t", "120", "start")
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Warn("the server is gone and does not start yet", "err", err, "said", out)
		default:
			s.log.Error("the server was gone and was started again; see its log for why", "log", s.path("log"))
		}
	}
}

// alive says whether the process that the pid file names is there.
func (s *PrivateServer) alive() bool {
	raw, err := os.ReadFile(s.path("data", "postmaster.pid"))
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(string(raw), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	return err == nil && syscall.Kill(pid, 0) == nil
}

// DSN returns how role reaches the database kadomori on this server.
func (s *PrivateServer) DSN(role string) string { return s.DSNFor(role, Database) }

// DSNFor is DSN for another database of the server.
func (s *PrivateServer) DSNFor(role, database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(role, s.secrets[role]), Path: "/" + database}
	u.RawQuery = url.Values{"host": {s.socket}, "sslmode": {"disable"}}.Encode()
	return u.String()
}

// Binaries is the folder of pg_dump and the other programs of the server's own version.
func (s *PrivateServer) Binaries() string { return s.bin }

// Stop ends the server in its fast mode: open transactions are rolled back, everything committed is on disk.
func (s *PrivateServer) Stop() error {
	if s.stopWatch != nil {
		s.stopWatch()
		s.watching.Wait()
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if out, err := s.run(ctx, "pg_ctl", "-D", s.path("data"), "-m", "fast", "-w", "-t", "50", "stop"); err != nil {
		if strings.Contains(out, "Is server running?") || strings.Contains(out, "PID file") {
			return nil // somebody else was faster
		}
		return fmt.Errorf("stop private postgres: %w: %s", err, out)
	}
	if s.socket != s.path("run") {
		_ = os.Remove(s.socket) // the folder in the temporary directory
	}
	return nil
}

func (s *PrivateServer) path(elem ...string) string {
	return filepath.Join(append([]string{s.dir}, elem...)...)
}

// newestBinaries finds the installed server programs: KADOMORI_POSTGRES_BIN, else the newest of Debian's.
func newestBinaries() (string, error) {
	if bin := os.Getenv("KADOMORI_POSTGRES_BIN"); bin != "" {
		if _, err := os.Stat(filepath.Join(bin, "initdb")); err != nil { //nolint:gosec // the operator names the folder
			return "", fmt.Errorf("read KADOMORI_POSTGRES_BIN: %w", err)
		}
		return bin, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil {
		return "", err
	}
	best, version := "", 0
	for _, f := range found {
		bin := filepath.Dir(f)
		if v, err := strconv.Atoi(filepath.Base(filepath.Dir(bin))); err == nil && v > version {
			best, version = bin, v
		}
	}
	if best == "" {
		return "", errors.New("no PostgreSQL server is installed below /usr/lib/postgresql: apt-get install postgresql")
	}
	return best, nil
}

// prepare makes the folders, gives them to the user who runs the server, and chooses the socket's folder.
func (s *PrivateServer) prepare() error {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return fmt.Errorf("find the user postgres to run the server as (never root): %w", err)
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
		s.attr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil { //nolint:gosec // the server's user must enter; what is inside is closed
		return err
	}
	s.socket = s.path("run")
	if len(s.socket)+len("/.s.PGSQL.5432") > socketPathMax {
		sum := sha256.Sum256([]byte(s.dir))
		s.socket = filepath.Join(os.TempDir(), "kadomori-pg-"+hex.EncodeToString(sum[:8]))
	}
	// The reporter, another user, passes through to the socket; there every role has a secret of its own, and nothing else here is open.
	// By chmod, because a service's umask may close what mkdir makes.
	if err := os.Chmod(s.dir, 0o711); err != nil { //nolint:gosec // passed through, not read
		return err
	}
	for _, d := range []struct {
		path string
		mode os.FileMode
	}{{s.path("data"), 0o700}, {s.socket, 0o711}} {
		if err := os.Mkdir(d.path, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		if err := ownedFolder(d.path, uid, gid); err != nil {
			return err
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(s.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	if os.Geteuid() == 0 {
		if err := log.Chown(uid, gid); err != nil {
			return err
		}
		return enterable(s.dir, uid, gid)
	}
	return nil
}

// ownedFolder makes sure d is a real folder of uid: in a shared place such as /tmp somebody else could have made it first.
func ownedFolder(d string, uid, gid int) error {
	fi, err := os.Lstat(d)
	if err != nil {
		return err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !fi.IsDir() || !ok {
		return fmt.Errorf("%s is not a folder", d)
	}
	if int(st.Uid) != uid {
		if os.Geteuid() != 0 || st.Uid != 0 {
			return fmt.Errorf("%s belongs to user %d, not to %d who runs the server", d, st.Uid, uid)
		}
		return os.Chown(d, uid, gid)
	}
	return nil
}

// enterable names the first parent folder that the server's user can't enter: initdb's own message does not.
func enterable(dir string, uid, gid int) error {
	for d := dir; ; d = filepath.Dir(d) {
		fi, err := os.Stat(d)
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		need := os.FileMode(0o001)
		switch {
		case int(st.Uid) == uid:
			need = 0o100
		case int(st.Gid) == gid:
			need = 0o010
		}
		if fi.Mode().Perm()&need == 0 {
			return fmt.Errorf("the user who runs the server can't enter %s: chmod o+x %s", d, d)
		}
		if d == filepath.Dir(d) {
			return nil
		}
	}
}

func (s *PrivateServer) initialise(ctx context.Context) error {
	secret, err := newSecret()
	if err != nil {
		return err
	}
	// initdb reads the password as the dropped user, so the file is his for the moment.
	pw := s.path("data.pw")
	if err := os.WriteFile(pw, []byte(secret+"\n"), 0o600); err != nil {
		return err
	}
	defer func() { _ = os.Remove(pw) }()
	if s.attr != nil {
		if err := os.Chown(pw, int(s.attr.Credential.Uid), int(s.attr.Credential.Gid)); err != nil {
			return err
		}
	}
	if err := s.saveSecrets(map[string]string{RoleOwner: secret}); err != nil {
		return err
	}
	out, err := s.run(ctx, "initdb", "-D", s.path("data"), "-A", "scram-sha-256", "--pwfile="+pw, "-U", RoleOwner, "-E", "UTF8",
		"--locale=C.UTF-8", "--data-checksums", "--no-instructions")
	if err != nil {
		return fmt.Errorf("make the cluster: %w: %s", err, out)
	}
	return nil
}

func (s *PrivateServer) checkVersion() error {
	have, err := os.ReadFile(s.path("data", "PG_VERSION"))
	if err != nil {
		return err
	}
	old, new := strings.TrimSpace(string(have)), filepath.Base(filepath.Dir(s.bin))
	if old == new || strings.Trim(new, "0123456789") != "" {
		return nil // the same; or KADOMORI_POSTGRES_BIN elsewhere, where pg_ctl itself compares
	}
	return fmt.Errorf("the cluster in %s is of PostgreSQL %s, the newest installed is %s. Upgrade it (a backup first):\n"+
		"  cd %s && sudo -u postgres sh -c '%s/initdb -D data.%s -U %s -E UTF8 --locale=C.UTF-8 --data-checksums -A scram-sha-256 -W && "+
		"%s/pg_upgrade -U %s -b /usr/lib/postgresql/%s/bin -B %s -d data -D data.%s' && mv data data.%s && mv data.%s data",
		s.path("data"), old, new, s.dir, s.bin, new, RoleOwner, s.bin, RoleOwner, old, s.bin, new, old, new)
}

// adopt reports whether a server runs already in our data folder.
func (s *PrivateServer) adopt(ctx context.Context) (bool, error) {
	raw, err := os.ReadFile(s.path("data", "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lines := strings.Split(string(raw), "\n")
	// A file left by a crash is stale: no such process, or one that pg_ctl knows to be another program. Its start clears it away.
	pid, bad := strconv.Atoi(strings.TrimSpace(lines[0]))
	if bad != nil || syscall.Kill(pid, 0) != nil {
		return false, ctx.Err()
	}
	if _, down := s.run(ctx, "pg_ctl", "-D", s.path("data"), "status"); down != nil {
		return false, ctx.Err()
	}
	if len(lines) > 4 && lines[4] != "" {
		s.socket = strings.TrimSpace(lines[4])
	}
	return true, s.waitReady(ctx)
}

func (s *PrivateServer) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		conn, err := pgx.Connect(ctx, s.DSNFor(RoleOwner, "postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server: %w", err)
		case <-tick.C:
		}
	}
}

// defaults are our postgresql.conf; autovacuum and memory follow a small host that also runs NATS and the console.
var defaults = [][2]string{
	{"listen_addresses", "''"},
	{"max_connections", "120"},
	{"shared_buffers", "256MB"},
	{"wal_compression", "lz4"},
	{"max_wal_size", "4GB"},
	{"checkpoint_timeout", "15min"},
	{"work_mem", "16MB"},
	{"random_page_cost", "1.1"},
	{"jit", "off"}, // compiling costs more than our queries take
	{"idle_in_transaction_session_timeout", "'10min'"},
	{"timezone", "'UTC'"},
	{"log_timezone", "'UTC'"},
	{"log_min_duration_statement", "'5s'"},
	{"log_line_prefix", "'%m [%p] %q%u@%d '"},
}

func (s *PrivateServer) configure(extra map[string]string) error {
	var b bytes.Buffer
	b.WriteString("# Written at every start by kadomori-control; put your own lines into postgresql.auto.conf with ALTER SYSTEM.\n")
	for _, kv := range defaults {
		fmt.Fprintf(&b, "%s = %s\n", kv[0], kv[1])
	}
	fmt.Fprintf(&b, "unix_socket_directories = '%s'\nunix_socket_permissions = 0777\n", strings.ReplaceAll(s.socket, "'", "''"))
	for k, v := range extra {
		fmt.Fprintf(&b, "%s = '%s'\n", k, strings.ReplaceAll(v, "'", "''"))
	}
	path := s.path("data", "kadomori.conf")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	if s.attr != nil {
		if err := os.Chown(path, int(s.attr.Credential.Uid), int(s.attr.Credential.Gid)); err != nil {
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	main := s.path("data", "postgresql.conf")
	have, err := os.ReadFile(main)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	const include = "include 'kadomori.conf'"
	if !bytes.Contains(have, []byte(include)) {
		if err := os.WriteFile(main, append(have, []byte("\n"+include+"\n")...), 0o600); err != nil { //nolint:gosec // a fixed name in our own folder
			return fmt.Errorf("write configuration: %w", err)
		}
	}
	return nil
}

// makeRoles gives each login role a password of its own and makes the database. Repeating it changes nothing.
func (s *PrivateServer) makeRoles(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.DSNFor(RoleOwner, "postgres"))
	if err != nil {
		return fmt.Errorf("make roles: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	changed := false
	for _, role := range []struct{ name, attributes string }{
		{RoleApp, "LOGIN NOINHERIT"},
		{RoleIngest, "LOGIN BYPASSRLS"},
		{RoleReporter, "LOGIN"},
	} {
		var exists bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role.name).Scan(&exists); err != nil {
			return fmt.Errorf("make roles: %w", err)
		}
		if exists && s.secrets[role.name] != "" {
			continue
		}
		if s.secrets[role.name], err = newSecret(); err != nil {
			return fmt.Errorf("make roles: %w", err)
		}
		changed = true
		verb := "CREATE"
		if exists {
			verb = "ALTER"
		}
		// The secret is base32-like hex of our own: nothing to quote. Saved first: a crash in between is mended by the next start.
		if err := s.saveSecrets(s.secrets); err != nil {
			return fmt.Errorf("make roles: %w", err)
		}
		if _, err := conn.Exec(ctx, fmt.Sprintf("%s ROLE %s %s PASSWORD '%s'", verb, role.name, role.attributes, s.secrets[role.name])); err != nil {
			return fmt.Errorf("make role %s: %w", role.name, err)
		}
	}
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", Database).Scan(&exists); err != nil {
		return fmt.Errorf("make database: %w", err)
	}
	if !exists {
		if _, err := conn.Exec(ctx, "CREATE DATABASE "+Database); err != nil {
			return fmt.Errorf("make database: %w", err)
		}
	}
	if changed {
		s.log.Debug("roles made")
	}
	return nil
}

func (s *PrivateServer) loadSecrets() error {
	raw, err := os.ReadFile(s.path("roles.json"))
	if err != nil {
		return fmt.Errorf("read the roles' secrets: %w", err)
	}
	s.secrets = map[string]string{}
	if err := json.Unmarshal(raw, &s.secrets); err != nil {
		return fmt.Errorf("read %s: %w", s.path("roles.json"), err)
	}
	return nil
}

func (s *PrivateServer) saveSecrets(secrets map[string]string) error {
	raw, err := json.MarshalIndent(secrets, "", "  ")
	if err != nil {
		return err
	}
	tmp := s.path("roles.json.new")
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return fmt.Errorf("write the roles' secrets: %w", err)
	}
	return os.Rename(tmp, s.path("roles.json"))
}

func newSecret() (string, error) {
	b := make([]byte, 24)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("make a secret: %w", err)
	}
	return hex.EncodeToString(b), nil
}

// run executes one of the server's programs as the server's user and returns what it printed.
func (s *PrivateServer) run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Dir = s.path("data") // the caller's folder may be closed to the server's user
	cmd.SysProcAttr = s.attr
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8", "TZ=UTC"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("run %s: %w", program, err)
	}
	return strings.TrimSpace(string(out)), err
}

// tail is the end of the server's log, for an error that must tell why it did not start.
func tail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	const keep = 1024
	if len(raw) > keep {
		raw = raw[len(raw)-keep:]
	}
	return "\n" + strings.TrimSpace(string(raw))
}

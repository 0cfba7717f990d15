package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// maxAnswer bounds a response: a report's PDF is the largest.
const maxAnswer = 64 << 20

// session is one run of the program.
type session struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	server, caFile, user, passwordFile, output string
	timeout                                    time.Duration

	conn *grpc.ClientConn
	stop context.CancelFunc
}

// saved is the login on disk, mode 0600.
type saved struct {
	Server  string    `json:"server"`
	User    string    `json:"user"`
	CA      string    `json:"ca"` // PEM
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
}

func savedFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find configuration directory: %w", err)
	}
	return filepath.Join(dir, "kadomori", "login.json"), nil
}

func loadSaved() (saved, error) {
	var l saved
	file, err := savedFile()
	if err != nil {
		return l, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return l, err
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("read login %s: %w", file, err)
	}
	return l, nil
}

func (l saved) store() error {
	file, err := savedFile()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("save login: %w", err)
	}
	b, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("save login: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".login-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("save login: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("save login: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

func (s *session) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
	if s.stop != nil {
		s.stop()
	}
}

// open connects as the operator of the login, or of --user and --password-file.
func (s *session) open(ctx context.Context) (context.Context, operatorv1.OperatorServiceClient, error) {
	var l saved
	var err error
	if s.server == "" || s.caFile == "" || s.passwordFile == "" { // else no home directory is needed
		if l, err = loadSaved(); err != nil && !errors.Is(err, os.ErrNotExist) {
			return ctx, nil, err
		}
	}
	if s.server == "" {
		s.server = l.Server
	}
	if s.server == "" {
		return ctx, nil, errors.New("no control plane is known: run kadomori login --server host:port, or give --server")
	}
	ca := []byte(l.CA)
	if s.caFile != "" {
		if ca, err = os.ReadFile(s.caFile); err != nil {
			return ctx, nil, fmt.Errorf("--ca: %w", err)
		}
	} else if l.Server != s.server {
		return ctx, nil, fmt.Errorf("the authority of %s is not known: give --ca, or run kadomori login --server %s", s.server, s.server)
	}
	op, err := s.dial(ca)
	if err != nil {
		return ctx, nil, err
	}
	ctx, s.stop = context.WithTimeout(ctx, s.timeout)
	token := l.Token
	switch {
	case s.passwordFile != "":
		if s.user == "" {
			return ctx, nil, errors.New("--password-file needs --user")
		}
		password, err := readPassword(s.passwordFile)
		if err != nil {
			return ctx, nil, err
		}
		login, err := op.Login(ctx, &operatorv1.LoginRequest{Name: s.user, Password: password})
		if err != nil {
			return ctx, nil, err
		}
		token = login.GetToken()
	case l.Server != s.server || token == "":
		return ctx, nil, fmt.Errorf("not logged in at %s: run kadomori login --server %s, or give --user and --password-file", s.server, s.server)
	case time.Now().After(l.Expires):
		return ctx, nil, fmt.Errorf("the login of %s ended at %s: run kadomori login --server %s", l.User, l.Expires.Local().Format("15:04"), s.server)
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), op, nil
}

func (s *session) dial(ca []byte) (operatorv1.OperatorServiceClient, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, errors.New("the certificate authority holds no PEM certificate")
	}
	conn, err := grpc.NewClient(s.server,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13})),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, fmt.Errorf("--server %q: %w", s.server, err)
	}
	s.conn = conn
	return operatorv1.NewOperatorServiceClient(conn), nil
}

func readPassword(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--password-file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

func (s *session) loginCommand() *cobra.Command {
	var pin string
	c := &cobra.Command{
		Use: "login", Short: "Log in at a control plane and remember it", Args: cobra.NoArgs,
		Long: "Logs in for 12 hours. At the first login the control plane's authority is shown by its SHA-256; compare it with\n" +
			"  openssl x509 -in <data_dir>/pki/ca.crt -outform der | sha256sum\n" +
			"on the control plane, or give it with --pin or --ca. It is remembered and nothing else is trusted afterwards.",
		Example: "  kadomori login --server control.example.jp:7443 --user admin\n" +
			"  kadomori login --server control.example.jp:7443 --user admin --password-file pw --pin 4f1c...",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.server == "" {
				if l, err := loadSaved(); err == nil {
					s.server = l.Server
				}
			}
			if s.server == "" {
				return errors.New("--server is needed: host:port of the control plane")
			}
			ctx, stop := context.WithTimeout(cmd.Context(), s.timeout)
			defer stop()
			in := bufio.NewReader(s.stdin)
			ca, err := s.authority(ctx, in, pin)
			if err != nil {
				return err
			}
			if s.user == "" {
				if s.user, err = s.ask(in, "Name: "); err != nil {
					return err
				}
			}
			var password string
			if s.passwordFile != "" {
				password, err = readPassword(s.passwordFile)
			} else {
				password, err = s.askSecret(in, "Password: ")
			}
			if err != nil {
				return err
			}
			op, err := s.dial(ca)
			if err != nil {
				return err
			}
			login, err := op.Login(ctx, &operatorv1.LoginRequest{Name: s.user, Password: password})
			if err != nil {
				return err
			}
			l := saved{Server: s.server, User: s.user, CA: string(ca), Token: login.GetToken(), Expires: login.GetExpires().AsTime()}
			if err := l.store(); err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.stdout, "Logged in at %s as %s (%s) until %s.\n", s.server, s.user, login.GetRole(), l.Expires.Local().Format("2006-01-02 15:04"))
			return err
		},
	}
	c.Flags().StringVar(&pin, "pin", "", "SHA-256 of the authority's certificate, hex")
	return c
}

// authority finds the CA to trust: --ca, the remembered one, or the server's own after a look at its fingerprint.
func (s *session) authority(ctx context.Context, in *bufio.Reader, pin string) ([]byte, error) {
	if s.caFile != "" {
		b, err := os.ReadFile(s.caFile)
		if err != nil {
			return nil, fmt.Errorf("--ca: %w", err)
		}
		return b, nil
	}
	if l, err := loadSaved(); err == nil && l.Server == s.server && l.CA != "" && pin == "" {
		return []byte(l.CA), nil
	}
	root, err := presentedRoot(ctx, s.server)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(root.Raw)
	got := hex.EncodeToString(sum[:])
	if pin != "" {
		if want := strings.ToLower(strings.ReplaceAll(pin, ":", "")); want != got {
			return nil, fmt.Errorf("the authority of %s has SHA-256 %s, --pin says %s: somebody may be in between", s.server, got, want)
		}
	} else {
		_, _ = fmt.Fprintf(s.stderr, "The authority of %s is not known yet. Its SHA-256 is\n  %s\n", s.server, got)
		answer, err := s.ask(in, "Trust it? (yes/no) ")
		if err != nil {
			return nil, err
		}
		if answer != "yes" {
			return nil, errors.New("not trusted; nothing was sent")
		}
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}), nil
}

// presentedRoot asks a server for its chain, sends nothing, and returns the self-signed end of it.
func presentedRoot(ctx context.Context, server string) (*x509.Certificate, error) {
	d := tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"},
		InsecureSkipVerify: true, //nolint:gosec // a person compares the fingerprint before anything is sent
	}}
	c, err := d.DialContext(ctx, "tcp", server)
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", server, err)
	}
	defer func() { _ = c.Close() }()
	conn, ok := c.(*tls.Conn)
	if !ok {
		return nil, errors.New("no TLS connection")
	}
	chain := conn.ConnectionState().PeerCertificates
	root := chain[len(chain)-1]
	if root.CheckSignatureFrom(root) != nil {
		return nil, fmt.Errorf("%s does not present its authority; give it with --ca", server)
	}
	// The chain must lead there, or its fingerprint would say nothing about the server.
	pool, mid := x509.NewCertPool(), x509.NewCertPool()
	pool.AddCert(root)
	for _, m := range chain[1:] {
		mid.AddCert(m)
	}
	host, _, err := net.SplitHostPort(server)
	if err != nil {
		return nil, fmt.Errorf("--server %q: %w", server, err)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: mid, DNSName: host}); err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", server, err)
	}
	return root, nil
}

func (s *session) ask(in *bufio.Reader, prompt string) (string, error) {
	_, _ = fmt.Fprint(s.stderr, prompt)
	line, err := in.ReadString('\n')
	if err != nil && line == "" {
		return "", fmt.Errorf("read answer: %w", err)
	}
	return strings.TrimSpace(line), nil
}

func (s *session) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the login", Args: cobra.NoArgs, Example: "  kadomori logout",
		RunE: func(*cobra.Command, []string) error {
			file, err := savedFile()
			if err != nil {
				return err
			}
			if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("forget login: %w", err)
			}
			return nil
		},
	}
}

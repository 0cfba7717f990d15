package broker

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	calloutSubject = "$SYS.REQ.USER.AUTH"
	calloutXKey    = "Nats-Server-Xkey" // header of a request that is sealed
	revokeSubject  = "kadomori.revoke"  // in account AUTH: tells the other replicas
	// answerFor bounds an answer: a revocation that no replica heard of ends the connection then at the latest.
	answerFor = time.Hour
	// remembered connections of one replica; the oldest go first. They are needed to cut, not to let in.
	maxRemembered = 1 << 16
)

// Login is a user of the external server's configuration.
type Login struct{ User, Password string }

// ExternalConfig of a NATS cluster that runs elsewhere, configured as ServerConfig prints.
type ExternalConfig struct {
	// URL such as tls://nats:4222; several are separated by commas.
	URL string
	// TLS trusts the cluster's certificate and holds one of the cluster's CA for us.
	TLS *tls.Config
	// Store, Auth, System are our users in accounts STORE, AUTH and SYS.
	Store, Auth, System Login
	// IssuerSeed (account nkey, SA...) signs answers; XKeySeed (curve nkey, SX...) opens requests.
	IssuerSeed, XKeySeed string
	// MaxBytes of the stream; 0 means 8 GiB. Replicas; 0 means 3.
	MaxBytes int64
	Replicas int
	// Authorise as in Config.
	Authorise func(*x509.Certificate) (clinic, appliance int32, err error)
	Metrics   prometheus.Registerer
	Log       hclog.Logger
}

// External answers the authorisation requests of a NATS cluster and reaches its stream. Any number of replicas may run.
type External struct {
	cfg          ExternalConfig
	log          hclog.Logger
	metrics      *metrics
	issuer, xkey nkeys.KeyPair
	auth, system *nats.Conn
	now          func() time.Time

	mu    sync.Mutex // guards what follows
	conns map[int32][]remote
	order []int32 // appliances in the order of their connections, for forgetting
}

// remote names a connection of some server of the cluster.
type remote struct {
	server string
	cid    uint64
}

// Connect starts to answer and makes the stream. It lives until Close.
func Connect(ctx context.Context, cfg ExternalConfig) (*External, error) {
	if cfg.Log == nil {
		cfg.Log = hclog.NewNullLogger()
	}
	if cfg.Authorise == nil {
		return nil, errors.New("connect to NATS: no authorisation function given")
	}
	e := &External{cfg: cfg, log: cfg.Log.Named("broker"), metrics: newMetrics(cfg.Metrics), now: time.Now, conns: map[int32][]remote{}}
	var err error
	if e.issuer, err = nkeys.FromSeed([]byte(cfg.IssuerSeed)); err != nil {
		return nil, fmt.Errorf("connect to NATS: read issuer seed: %w", err)
	}
	if e.xkey, err = nkeys.FromCurveSeed([]byte(cfg.XKeySeed)); err != nil {
		return nil, fmt.Errorf("connect to NATS: read xkey seed: %w", err)
	}
	if e.auth, err = e.connect(cfg.Auth); err != nil {
		return nil, fmt.Errorf("connect to NATS account AUTH: %w", err)
	}
	if e.system, err = e.connect(cfg.System); err != nil {
		e.Close()
		return nil, fmt.Errorf("connect to NATS account SYS: %w", err)
	}
	if err := e.serve(); err != nil {
		e.Close()
		return nil, fmt.Errorf("answer authorisation requests: %w", err)
	}
	store, err := e.Conn()
	if err != nil {
		e.Close()
		return nil, err
	}
	defer store.Close()
	if err := MakeStream(ctx, store, cmp.Or(cfg.MaxBytes, 8<<30), cmp.Or(cfg.Replicas, 3)); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

func (e *External) connect(l Login) (*nats.Conn, error) {
	return nats.Connect(e.cfg.URL, nats.UserInfo(l.User, l.Password), nats.Secure(e.cfg.TLS), nats.Name("kadomori-control"),
		nats.MaxReconnects(-1), nats.ReconnectWait(time.Second), nats.ReconnectJitter(100*time.Millisecond, time.Second),
		nats.ReconnectBufSize(-1), nats.PingInterval(30*time.Second))
}

// Conn opens a connection in account STORE. The caller closes it.
func (e *External) Conn() (*nats.Conn, error) {
	nc, err := e.connect(e.cfg.Store)
	if err != nil {
		return nil, fmt.Errorf("connect to NATS account STORE: %w", err)
	}
	return nc, nil
}

// Disconnect cuts the appliance's connections on every server of the cluster, whichever replica let them in.
func (e *External) Disconnect(appliance int32) {
	if err := e.auth.Publish(revokeSubject, []byte(strconv.FormatInt(int64(appliance), 10))); err != nil {
		e.log.Warn("tell the other replicas of a revocation", "appliance", appliance, "err", err)
		e.cut(appliance)
	}
}

// Close stops answering. Appliances that are connected stay so.
func (e *External) Close() {
	for _, nc := range []*nats.Conn{e.auth, e.system} {
		if nc != nil {
			nc.Close()
		}
	}
}

func (e *External) serve() error {
	if _, err := e.auth.QueueSubscribe(calloutSubject, "kadomori", e.answer); err != nil {
		return err
	}
	if _, err := e.auth.Subscribe(revokeSubject, func(m *nats.Msg) {
		n, err := strconv.ParseInt(string(m.Data), 10, 32)
		if err != nil {
			e.log.Warn("unreadable revocation", "err", err)
			return
		}
		e.cut(int32(n))
	}); err != nil {
		return err
	}
	return e.auth.FlushTimeout(10 * time.Second)
}

func (e *External) cut(appliance int32) {
	e.mu.Lock()
	conns := e.conns[appliance]
	delete(e.conns, appliance)
	e.mu.Unlock()
	for _, c := range conns {
		body, err := json.Marshal(map[string]uint64{"cid": c.cid})
		if err == nil {
			// A request, not a publish: the server ignores what wants no answer.
			_, err = e.system.Request("$SYS.REQ.SERVER."+c.server+".KICK", body, 5*time.Second)
		}
		if err != nil {
			e.log.Error("cut a revoked appliance", "appliance", appliance, "err", err)
			continue
		}
		e.log.Info("disconnected", "appliance", appliance)
	}
}

// answer decides about one connection. What can't even be read gets no answer: the server refuses by itself.
func (e *External) answer(m *nats.Msg) {
	body := m.Data
	sender := m.Header.Get(calloutXKey)
	if sender == "" {
		e.log.Warn("authorisation request that is not sealed: set xkey in the server's auth_callout")
		e.metrics.refused.Inc()
		return
	}
	body, err := e.xkey.Open(body, sender)
	if err != nil {
		e.log.Warn("open authorisation request", "err", err)
		e.metrics.refused.Inc()
		return
	}
	req, err := jwt.DecodeAuthorizationRequestClaims(string(body))
	if err != nil {
		e.log.Warn("read authorisation request", "err", err)
		e.metrics.refused.Inc()
		return
	}
	resp := jwt.NewAuthorizationResponseClaims(req.UserNkey)
	resp.Audience = req.Server.ID
	if resp.Jwt, err = e.user(req); err != nil {
		e.metrics.refused.Inc()
		e.log.Warn("connection refused", "remote", req.ClientInformation.Host, "err", err)
		resp.Error = "not authorised" // the log knows why; a stranger need not
	}
	token, err := resp.Encode(e.issuer)
	if err != nil {
		e.log.Error("sign authorisation answer", "err", err)
		return
	}
	sealed, err := e.xkey.Seal([]byte(token), sender)
	if err == nil {
		err = m.Respond(sealed)
	}
	if err != nil {
		e.log.Error("answer authorisation request", "err", err)
	}
}

// user makes the rights of the appliance whose certificate the server verified.
func (e *External) user(req *jwt.AuthorizationRequestClaims) (string, error) {
	if req.TLS == nil || len(req.TLS.VerifiedChains) == 0 || len(req.TLS.VerifiedChains[0]) == 0 {
		return "", errors.New("no verified certificate: the server must run with tls verify")
	}
	block, _ := pem.Decode([]byte(req.TLS.VerifiedChains[0][0]))
	if block == nil {
		return "", errors.New("certificate is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", fmt.Errorf("read certificate: %w", err)
	}
	clinic, appliance, err := e.cfg.Authorise(cert)
	if err != nil {
		return "", err
	}
	if clinic <= 0 || appliance <= 0 {
		return "", fmt.Errorf("clinic %d, appliance %d: ids start at 1", clinic, appliance)
	}
	uc := jwt.NewUserClaims(req.UserNkey)
	uc.Name = fmt.Sprintf("%d.%d", clinic, appliance)
	uc.Audience = AccountAppliance
	publish, inbox := permissions(clinic, appliance)
	uc.Pub.Allow.Add(publish)
	uc.Sub.Allow.Add(inbox)
	uc.Limits.Payload = MaxMessage + 4096
	uc.Subs = 64
	end := e.now().Add(answerFor)
	if cert.NotAfter.Before(end) {
		end = cert.NotAfter
	}
	uc.Expires = end.Unix()
	token, err := uc.Encode(e.issuer)
	if err != nil {
		return "", fmt.Errorf("sign rights: %w", err)
	}
	e.remember(appliance, remote{server: req.Server.ID, cid: req.ClientInformation.ID})
	e.metrics.connected.Inc()
	return token, nil
}

func (e *External) remember(appliance int32, r remote) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns[appliance] = append(e.conns[appliance], r)
	if n := len(e.conns[appliance]); n > 8 {
		e.conns[appliance] = e.conns[appliance][n-8:]
	}
	e.order = append(e.order, appliance)
	if len(e.order) > maxRemembered {
		oldest := e.order[0]
		e.order = e.order[1:]
		if c := e.conns[oldest]; len(c) > 1 {
			e.conns[oldest] = c[1:]
		} else {
			delete(e.conns, oldest)
		}
	}
}

// ServerConfig prints the part of nats-server's configuration that this package relies on. issuer and xkey are the public keys; the
// passwords should be bcrypt hashes (nats server passwd). What the operator adds: listen, cluster, store_dir, tls with verify: true.
func ServerConfig(issuer, xkey string, store, auth, system Login) string {
	q := strconv.Quote
	return strings.Join([]string{
		"max_payload: " + strconv.Itoa(MaxMessage+4096),
		"system_account: SYS",
		"accounts {",
		"  SYS { users: [{user: " + q(system.User) + ", password: " + q(system.Password) + "}] }",
		"  AUTH { users: [{user: " + q(auth.User) + ", password: " + q(auth.Password) + "}] }",
		"  STORE {",
		"    jetstream: enabled",
		"    users: [{user: " + q(store.User) + ", password: " + q(store.Password) + "}]",
		"    exports: [{service: \"" + SubjectPrefix + ">\", accounts: [" + AccountAppliance + "]}]",
		"  }",
		"  # Appliances reach the stream through the import only: a reply subject of one can't be written into it as another's event.",
		"  " + AccountAppliance + " { imports: [{service: {account: " + AccountStore + ", subject: \"" + SubjectPrefix + ">\"}}] }",
		"}",
		"authorization {",
		"  timeout: 10",
		"  auth_callout {",
		"    issuer: " + issuer,
		"    xkey: " + xkey,
		"    account: AUTH",
		"    auth_users: [" + q(auth.User) + ", " + q(store.User) + ", " + q(system.User) + "]",
		"  }",
		"}",
		"",
	}, "\n")
}

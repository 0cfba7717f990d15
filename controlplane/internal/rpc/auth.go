package rpc

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/kadomori/kadomori/controlplane/internal/account"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// Errors of authenticate.
var (
	errNoCertificate = errors.New("a client certificate of this control plane is needed; enrol the appliance with a claim")
	errNoToken       = errors.New("not logged in: run kadomori login")
	errRole          = errors.New("your role does not allow this")
	errExpired       = errors.New("certificate has expired; renew it")
)

// Who may call a method.
type access int

const (
	anyone access = iota + 1
	renewing
	admitted
	operators
)

var (
	every   = account.Roles
	change  = []account.Role{account.Manager, account.Admin}
	approve = []account.Role{account.Manager, account.Approver, account.Admin}
	notRead = []account.Role{account.Analyst, account.Lead, account.Manager, account.Approver, account.Admin}
)

// rules names every method; a method that is not here is refused. A test compares it with the services.
var rules = map[string]struct {
	access access
	roles  []account.Role
}{
	enrolv1.EnrolService_Enrol_FullMethodName:                   {access: anyone},
	enrolv1.EnrolService_Renew_FullMethodName:                   {access: renewing},
	fleetv1.FleetService_Watch_FullMethodName:                   {access: admitted},
	fleetv1.FleetService_FetchBundle_FullMethodName:             {access: admitted},
	fleetv1.FleetService_ReportState_FullMethodName:             {access: admitted},
	operatorv1.OperatorService_Login_FullMethodName:             {access: anyone},
	operatorv1.OperatorService_CreateClinic_FullMethodName:      {operators, change},
	operatorv1.OperatorService_ListClinics_FullMethodName:       {operators, every},
	operatorv1.OperatorService_CreateClaim_FullMethodName:       {operators, change},
	operatorv1.OperatorService_ListAppliances_FullMethodName:    {operators, every},
	operatorv1.OperatorService_ApproveAppliance_FullMethodName:  {operators, approve},
	operatorv1.OperatorService_RevokeAppliance_FullMethodName:   {operators, approve},
	operatorv1.OperatorService_NameDevice_FullMethodName:        {operators, notRead},
	operatorv1.OperatorService_ApplyPlan_FullMethodName:         {operators, change},
	operatorv1.OperatorService_GetPlan_FullMethodName:           {operators, every},
	operatorv1.OperatorService_SetOverride_FullMethodName:       {operators, change},
	operatorv1.OperatorService_ExplainPolicy_FullMethodName:     {operators, every},
	operatorv1.OperatorService_PublishSignatures_FullMethodName: {operators, change},
	operatorv1.OperatorService_ListPlans_FullMethodName:         {operators, every},
	operatorv1.OperatorService_ApplyGroup_FullMethodName:        {operators, change},
	operatorv1.OperatorService_MoveClinic_FullMethodName:        {operators, change},
	operatorv1.OperatorService_CreateRollout_FullMethodName:     {operators, change},
	operatorv1.OperatorService_ControlRollout_FullMethodName:    {operators, approve},
	operatorv1.OperatorService_GetRollout_FullMethodName:        {operators, every},
	operatorv1.OperatorService_ListRollouts_FullMethodName:      {operators, every},
	operatorv1.OperatorService_SendCommand_FullMethodName:       {operators, []account.Role{account.Lead, account.Manager, account.Admin}},
	operatorv1.OperatorService_DecideCommand_FullMethodName:     {operators, approve},
	operatorv1.OperatorService_ListCommands_FullMethodName:      {operators, every},
	operatorv1.OperatorService_GetSettings_FullMethodName:       {operators, every},
	operatorv1.OperatorService_SetSettings_FullMethodName:       {operators, change},
	operatorv1.OperatorService_RequestReport_FullMethodName:     {operators, notRead},
	operatorv1.OperatorService_ListReports_FullMethodName:       {operators, every},
	operatorv1.OperatorService_GetReport_FullMethodName:         {operators, every},
	operatorv1.OperatorService_GetLedger_FullMethodName:         {operators, every},
	operatorv1.OperatorService_ListInfected_FullMethodName:      {operators, every},
}

type (
	boxKey      struct{}
	certKey     struct{}
	operatorKey struct{}
)

// box is the appliance that calls; only methods of access admitted have one.
func box(ctx context.Context) pki.Identity {
	id, _ := ctx.Value(boxKey{}).(pki.Identity)
	return id
}

// certificate is the caller's, verified; only methods of access renewing and admitted have one.
func certificate(ctx context.Context) *x509.Certificate {
	c, _ := ctx.Value(certKey{}).(*x509.Certificate)
	return c
}

// caller is the operator who calls; only methods of access operators have one.
func caller(ctx context.Context) account.Operator {
	op, _ := ctx.Value(operatorKey{}).(account.Operator)
	return op
}

// authenticate finds out who calls and whether the method is open to them.
func (s *Server) authenticate(ctx context.Context, method string) (context.Context, error) {
	rule, ok := rules[method]
	if !ok {
		return ctx, fmt.Errorf("%w: %s has no rule", errRole, method)
	}
	switch rule.access {
	case anyone:
		return ctx, nil
	case renewing, admitted:
		cert := peerCertificate(ctx)
		if cert == nil {
			return ctx, errNoCertificate
		}
		ctx = context.WithValue(ctx, certKey{}, cert)
		if rule.access == renewing {
			return ctx, nil // Renew asks the registry itself
		}
		if s.now().After(cert.NotAfter) {
			return ctx, errExpired
		}
		id, err := s.cfg.Registry.Authorise(ctx, cert)
		if err != nil {
			return ctx, err
		}
		return context.WithValue(ctx, boxKey{}, id), nil
	case operators:
		op, err := s.cfg.Accounts.Session(ctx, bearer(ctx))
		if err != nil {
			if errors.Is(err, account.ErrSession) && bearer(ctx) == "" {
				return ctx, errNoToken
			}
			return ctx, err
		}
		if !slices.Contains(rule.roles, op.Role) {
			return ctx, fmt.Errorf("%w: you are %s, needed is one of %v", errRole, op.Role, rule.roles)
		}
		return context.WithValue(ctx, operatorKey{}, op), nil
	}
	return ctx, errRole
}

// peerCertificate returns the client's certificate; the handshake has verified it (pki.OptionalClients).
func peerCertificate(ctx context.Context) *x509.Certificate {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return nil
	}
	return info.State.PeerCertificates[0]
}

func bearer(ctx context.Context) string {
	for _, v := range metadata.ValueFromIncomingContext(ctx, "authorization") {
		if token, ok := strings.CutPrefix(v, "Bearer "); ok {
			return token
		}
	}
	return ""
}

// peerHost is the caller's address without its port.
func peerHost(ctx context.Context) string {
	host, _, err := net.SplitHostPort(peerAddress(ctx))
	if err != nil {
		return peerAddress(ctx)
	}
	return host
}

func peerAddress(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return "unknown"
}

package rpc

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kadomori/kadomori/controlplane/internal/account"
	"github.com/kadomori/kadomori/controlplane/internal/appliance"
	"github.com/kadomori/kadomori/controlplane/internal/bundle"
	"github.com/kadomori/kadomori/controlplane/internal/clinic"
	"github.com/kadomori/kadomori/controlplane/internal/command"
	"github.com/kadomori/kadomori/controlplane/internal/enrol"
	"github.com/kadomori/kadomori/controlplane/internal/pki"
	"github.com/kadomori/kadomori/controlplane/internal/policy"
	"github.com/kadomori/kadomori/controlplane/internal/rollout"
	"github.com/kadomori/kadomori/controlplane/internal/setting"
	"github.com/kadomori/kadomori/controlplane/internal/signature"
)

// errRequest is a request that no domain package sees; wrapped with why.
var errRequest = errors.New("request is not valid")

// errNotFound is something that no domain package owns; wrapped with what.
var errNotFound = errors.New("not found")

// kinds is the one place where errors become gRPC codes.
var kinds = []struct {
	err  error
	code codes.Code
}{
	{errRequest, codes.InvalidArgument},
	{enrol.ErrInvalid, codes.InvalidArgument},
	{pki.ErrRequest, codes.InvalidArgument},
	{policy.ErrInvalid, codes.InvalidArgument},
	{signature.ErrInvalid, codes.InvalidArgument},
	{clinic.ErrInvalid, codes.InvalidArgument},
	{appliance.ErrInvalid, codes.InvalidArgument},
	{account.ErrInvalid, codes.InvalidArgument},
	{rollout.ErrInvalid, codes.InvalidArgument},
	{setting.ErrInvalid, codes.InvalidArgument},
	{command.ErrInvalid, codes.InvalidArgument},
	{enrol.ErrClaim, codes.Unauthenticated},
	{account.ErrLogin, codes.Unauthenticated},
	{account.ErrSession, codes.Unauthenticated},
	{errNoCertificate, codes.Unauthenticated},
	{errNoToken, codes.Unauthenticated},
	{errExpired, codes.Unauthenticated},
	{pki.ErrIdentity, codes.Unauthenticated},
	{pki.ErrUnknown, codes.PermissionDenied},
	{pki.ErrRevoked, codes.PermissionDenied},
	{errRole, codes.PermissionDenied},
	{enrol.ErrLimited, codes.ResourceExhausted},
	{account.ErrLimited, codes.ResourceExhausted},
	{errNotFound, codes.NotFound},
	{clinic.ErrNotFound, codes.NotFound},
	{appliance.ErrNotFound, codes.NotFound},
	{policy.ErrNotFound, codes.NotFound},
	{bundle.ErrNotFound, codes.NotFound},
	{rollout.ErrNotFound, codes.NotFound},
	{command.ErrNotFound, codes.NotFound},
	{clinic.ErrExists, codes.AlreadyExists},
	{account.ErrExists, codes.AlreadyExists},
	{policy.ErrConflict, codes.Aborted},
	{appliance.ErrState, codes.FailedPrecondition},
	{rollout.ErrState, codes.FailedPrecondition},
	{command.ErrState, codes.FailedPrecondition},
	{command.ErrSamePerson, codes.PermissionDenied},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
}

// toStatus translates; what nobody named is logged here and told as "internal error", for it may hold SQL or paths.
func (s *Server) toStatus(method string, err error) error {
	if err == nil {
		return nil
	}
	if st, ok := status.FromError(err); ok {
		return st.Err()
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return status.Error(k.code, err.Error())
		}
	}
	s.log.Error("call failed", "method", method, "err", err)
	return status.Error(codes.Internal, "internal error; the control plane's log says more")
}

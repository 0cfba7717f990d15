package rpc

import (
	"testing"

	"google.golang.org/grpc"

	enrolv1 "github.com/kadomori/kadomori/proto/gen/kadomori/enrol/v1"
	fleetv1 "github.com/kadomori/kadomori/proto/gen/kadomori/fleet/v1"
	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"

	"github.com/kadomori/kadomori/controlplane/internal/account"
)

// TestEveryMethodHasARule fails when an RPC is added and nobody said who may call it, or a rule names an RPC that is gone.
func TestEveryMethodHasARule(t *testing.T) {
	t.Parallel()
	methods := map[string]bool{}
	for _, d := range []grpc.ServiceDesc{enrolv1.EnrolService_ServiceDesc, fleetv1.FleetService_ServiceDesc, operatorv1.OperatorService_ServiceDesc} {
		for _, m := range d.Methods {
			methods["/"+d.ServiceName+"/"+m.MethodName] = true
		}
		for _, m := range d.Streams {
			methods["/"+d.ServiceName+"/"+m.StreamName] = true
		}
	}
	for m := range methods {
		if _, ok := rules[m]; !ok {
			t.Errorf("%s has no rule", m)
		}
	}
	for m, r := range rules {
		if !methods[m] {
			t.Errorf("rule for %s, which no service has", m)
		}
		if (r.access == operators) != (len(r.roles) > 0) {
			t.Errorf("%s: access %d with roles %v", m, r.access, r.roles)
		}
	}
}

// TestAuditorChangesNothing holds the auditor's and the analyst's roles to reading (console design 1.3).
func TestAuditorChangesNothing(t *testing.T) {
	t.Parallel()
	may := map[string]map[account.Role]bool{}
	for m, r := range rules {
		may[m] = map[account.Role]bool{}
		for _, role := range r.roles {
			may[m][role] = true
		}
	}
	for _, m := range []string{
		operatorv1.OperatorService_CreateClinic_FullMethodName, operatorv1.OperatorService_CreateClaim_FullMethodName,
		operatorv1.OperatorService_ApplyPlan_FullMethodName, operatorv1.OperatorService_SetOverride_FullMethodName,
		operatorv1.OperatorService_PublishSignatures_FullMethodName, operatorv1.OperatorService_RevokeAppliance_FullMethodName,
		operatorv1.OperatorService_ControlRollout_FullMethodName, operatorv1.OperatorService_SendCommand_FullMethodName,
		operatorv1.OperatorService_SetSettings_FullMethodName, operatorv1.OperatorService_RequestReport_FullMethodName,
	} {
		if may[m][account.Auditor] {
			t.Errorf("an auditor may call %s", m)
		}
		if m != operatorv1.OperatorService_RequestReport_FullMethodName && may[m][account.Analyst] {
			t.Errorf("an analyst may call %s", m)
		}
	}
}

package cli

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

func (s *session) clinicCommand() *cobra.Command {
	in := &operatorv1.Clinic{}
	create := &cobra.Command{
		Use: "create", Short: "Add a clinic", Args: cobra.NoArgs,
		Example: `  kadomori clinic create --name さくら通り内科クリニック --hours "mon-fri 09:00-12:30 14:00-18:30; sat 09:00-13:00"`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.CreateClinic(ctx, &operatorv1.CreateClinicRequest{Clinic: in})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				c := resp.GetClinic()
				t.row("ID", "CODE", "NAME", "PLAN")
				t.row(c.GetId(), c.GetCode(), c.GetName(), c.GetPlan())
				t.note = "next: kadomori claim create --clinic " + c.GetCode()
			})
		},
	}
	f := create.Flags()
	f.StringVar(&in.Name, "name", "", "name, as it stands on the report (needed)")
	f.StringVar(&in.Code, "code", "", "short code, like C001 (default: the next free one)")
	f.StringVar(&in.Kana, "kana", "", "reading of the name")
	f.StringVar(&in.Director, "director", "", "director (院長)")
	f.StringVar(&in.Plan, "plan", "", "plan the clinic follows (default: standard)")
	f.StringVar(&in.Hours, "hours", "", "hours of care, Japan time")
	_ = create.MarkFlagRequired("name")
	list := &cobra.Command{
		Use: "list", Short: "List the clinics", Args: cobra.NoArgs, Example: "  kadomori clinic list --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			all, err := allClinics(ctx, op)
			if err != nil {
				return err
			}
			return s.print(&operatorv1.ListClinicsResponse{Clinics: all}, func(t *table) {
				t.row("ID", "CODE", "NAME", "PLAN", "HOURS")
				for _, c := range all {
					t.row(c.GetId(), c.GetCode(), c.GetName(), c.GetPlan(), c.GetHours())
				}
			})
		},
	}
	return group("clinic", "Clinics", create, list, s.moveCommand())
}

func (s *session) claimCommand() *cobra.Command {
	in := &operatorv1.CreateClaimRequest{}
	var clinic string
	var ttl time.Duration
	create := &cobra.Command{
		Use: "create", Short: "Make a one-time claim for a new appliance", Args: cobra.NoArgs,
		Long: "The claim is shown once. Put it on the appliance (kadomori-agent enroll, or agent.yaml); it finds its control plane and\n" +
			"its clinic by it. Without --auto-approve somebody must approve the appliance after it has called.",
		Example: "  kadomori claim create --clinic C001 --name 受付 --serial KM-2026-0042 --auto-approve",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			if in.ClinicId, err = s.clinicID(ctx, op, clinic); err != nil {
				return err
			}
			in.TtlS = int64(ttl / time.Second)
			resp, err := op.CreateClaim(ctx, in)
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row(resp.GetClaim())
				t.note = fmt.Sprintf("claim %d, valid until %s; it is not shown again", resp.GetClaimId(), when(resp.GetExpires()))
			})
		},
	}
	clinicFlag(create, &clinic, true)
	f := create.Flags()
	f.StringVar(&in.ApplianceName, "name", "", "name of the appliance")
	f.StringVar(&in.Serial, "serial", "", "only hardware of this serial may use it")
	f.BoolVar(&in.AutoApprove, "auto-approve", false, "let the appliance in at once")
	f.DurationVar(&ttl, "ttl", 7*24*time.Hour, "how long it is valid")
	return group("claim", "Enrolment claims", create, s.importCommand())
}

func applianceID(arg string) (int32, error) {
	id, err := strconv.ParseInt(arg, 10, 32)
	if err != nil || id < 1 {
		return 0, fmt.Errorf("appliance %q: want its number; kadomori appliance list shows them", arg)
	}
	return int32(id), nil
}

func (s *session) applianceCommand() *cobra.Command {
	var clinic, reason string
	list := &cobra.Command{
		Use: "list", Short: "List the appliances with what they report", Args: cobra.NoArgs,
		Example: "  kadomori appliance list\n  kadomori appliance list --clinic C001 --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			id, err := s.clinicID(ctx, op, clinic)
			if err != nil {
				return err
			}
			all := &operatorv1.ListAppliancesResponse{}
			for token := ""; ; {
				resp, err := op.ListAppliances(ctx, &operatorv1.ListAppliancesRequest{ClinicId: id, PageSize: 1000, PageToken: token})
				if err != nil {
					return err
				}
				all.Appliances = append(all.Appliances, resp.GetAppliances()...)
				if token = resp.GetNextPageToken(); token == "" {
					break
				}
			}
			return s.print(all, func(t *table) {
				t.row("ID", "CLINIC", "NAME", "STATE", "ONLINE", "LAST SEEN", "INTENT", "PROTECTION", "POLICY", "SIGNATURES", "VERSION", "DETAIL")
				for _, a := range all.GetAppliances() {
					t.row(a.GetId(), a.GetClinicId(), a.GetName(), a.GetState(), a.GetOnline(), a.GetLastSeen(), a.GetIntent(), a.GetProtection(),
						a.GetPolicyVersion(), a.GetSignatureVersion(), a.GetVersion(), a.GetIntentDetail())
				}
			})
		},
	}
	clinicFlag(list, &clinic, false)
	approve := &cobra.Command{
		Use: "approve ID", Short: "Let a pending appliance in", Args: cobra.ExactArgs(1), Example: "  kadomori appliance approve 7",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := applianceID(args[0])
			if err != nil {
				return err
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.ApproveAppliance(ctx, &operatorv1.ApproveApplianceRequest{ApplianceId: id})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.note = fmt.Sprintf("appliance %d is approved; it gets its certificate at its next call", id)
			})
		},
	}
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "End an appliance's identity at once", Args: cobra.ExactArgs(1),
		Example: `  kadomori appliance revoke 7 --reason "stolen from the clinic"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := applianceID(args[0])
			if err != nil {
				return err
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.RevokeAppliance(ctx, &operatorv1.RevokeApplianceRequest{ApplianceId: id, Reason: reason})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) { t.note = fmt.Sprintf("appliance %d is out; its connections were cut", id) })
		},
	}
	revoke.Flags().StringVar(&reason, "reason", "", "why (needed, written to the audit log)")
	_ = revoke.MarkFlagRequired("reason")
	return group("appliance", "Appliances", list, approve, revoke, s.replaceCommand())
}

func (s *session) deviceCommand() *cobra.Command {
	in := &operatorv1.NameDeviceRequest{}
	var clinic string
	name := &cobra.Command{
		Use: "name", Short: "Give a device the clinic's own name for it", Args: cobra.NoArgs,
		Example: "  kadomori device name --clinic C001 --mac 02:00:00:00:11:0a --name 受付PC",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			if in.ClinicId, err = s.clinicID(ctx, op, clinic); err != nil {
				return err
			}
			resp, err := op.NameDevice(ctx, in)
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) { t.note = in.GetMac() + " is now " + clean(in.GetName()) })
		},
	}
	clinicFlag(name, &clinic, true)
	name.Flags().StringVar(&in.Mac, "mac", "", "hardware address (needed)")
	name.Flags().StringVar(&in.Name, "name", "", "name (empty: none)")
	_ = name.MarkFlagRequired("mac")
	return group("device", "Devices behind the appliances", name)
}

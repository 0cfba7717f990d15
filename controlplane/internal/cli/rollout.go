package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

func (s *session) settingCommand() *cobra.Command {
	get := &cobra.Command{
		Use: "get", Short: "Print the settings of the MSP", Args: cobra.NoArgs, Example: "  kadomori setting get",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.GetSettings(ctx, &operatorv1.GetSettingsRequest{})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("NAME", "VALUE")
				for _, n := range slices.Sorted(maps.Keys(resp.GetSettings())) {
					t.row(n, resp.GetSettings()[n])
				}
			})
		},
	}
	set := &cobra.Command{
		Use: "set NAME=VALUE...", Short: "Change settings of the MSP: the sender of the reports", Args: cobra.MinimumNArgs(1),
		Long:    "Names: msp.name, msp.desk, msp.phone, msp.hours. An empty value removes a setting.",
		Example: "  kadomori setting set msp.name=株式会社みなとIT msp.desk=監視センター msp.phone=03-0000-0000 \"msp.hours=平日 9:00〜18:00\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &operatorv1.SetSettingsRequest{Settings: map[string]string{}}
			for _, a := range args {
				name, value, ok := strings.Cut(a, "=")
				if !ok {
					return fmt.Errorf("%q: want NAME=VALUE", a)
				}
				req.Settings[name] = value
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.SetSettings(ctx, req)
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) { t.note = "saved; reports made from now on use it" })
		},
	}
	return group("setting", "What reports say of the MSP", get, set)
}

func (s *session) groupCommand() *cobra.Command {
	var file, reason string
	var dryRun bool
	apply := &cobra.Command{
		Use: "apply NAME", Short: "Check a group's document and publish it to its clinics", Args: cobra.ExactArgs(1),
		Long:    "A group lies between the plan and a clinic's override; kadomori clinic move puts clinics into it.",
		Example: "  kadomori group apply dialysis -f dialysis.yaml --reason \"vendor's remote access\" --dry-run",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := s.readInput(file)
			if err != nil {
				return fmt.Errorf("-f: %w", err)
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.ApplyGroup(ctx, &operatorv1.ApplyGroupRequest{Name: args[0], Yaml: string(text), DryRun: dryRun, Reason: reason})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.note = fmt.Sprintf("%sgroup %s revision %d, %d clinics change%s", resp.GetDiff(), args[0], resp.GetRevision(), resp.GetClinics(), kept(dryRun))
			})
		},
	}
	apply.Flags().StringVarP(&file, "file", "f", "", "group's document (YAML), - for standard input (needed)")
	apply.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	apply.Flags().BoolVar(&dryRun, "dry-run", false, "show the differences and keep nothing")
	_ = apply.MarkFlagRequired("file")
	return group("group", "Policies between plan and clinic", apply)
}

func kept(dryRun bool) string {
	if dryRun {
		return " (dry run, nothing was kept)"
	}
	return ""
}

func (s *session) moveCommand() *cobra.Command {
	req := &operatorv1.MoveClinicRequest{}
	c := &cobra.Command{
		Use: "move CLINIC", Short: "Make a clinic follow another plan or group", Args: cobra.ExactArgs(1),
		Example: "  kadomori clinic move C001 --group dialysis --reason \"opened a dialysis ward\"\n  kadomori clinic move C001 --group - --reason \"closed it\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			if req.ClinicId, err = s.clinicID(ctx, op, args[0]); err != nil {
				return err
			}
			resp, err := op.MoveClinic(ctx, req)
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.note = resp.GetDiff() + "moved" + kept(req.GetDryRun())
				if resp.GetDiff() == "" {
					t.note = "its effective policy stays the same" + kept(req.GetDryRun())
				}
			})
		},
	}
	c.Flags().StringVar(&req.Plan, "plan", "", "plan to follow (default: as it is)")
	c.Flags().StringVar(&req.Group, "group", "", "group to belong to, - for none (default: as it is)")
	c.Flags().StringVar(&req.Reason, "reason", "", "why, for the audit log")
	c.Flags().BoolVar(&req.DryRun, "dry-run", false, "show the differences and keep nothing")
	return c
}

func (s *session) rolloutCommand() *cobra.Command {
	return group("rollout", "Staged changes, ring by ring", s.rolloutPlan(), s.rolloutList(), s.rolloutWatch(),
		s.rolloutControl("start", "Begin a planned rollout", operatorv1.RolloutAction_ROLLOUT_ACTION_START),
		s.rolloutControl("pause", "Reach nobody further for now", operatorv1.RolloutAction_ROLLOUT_ACTION_PAUSE),
		s.rolloutControl("resume", "Go on after a pause or a halt", operatorv1.RolloutAction_ROLLOUT_ACTION_RESUME),
		s.rolloutControl("abort", "End it; those reached keep the new version", operatorv1.RolloutAction_ROLLOUT_ACTION_ABORT),
		s.rolloutControl("rollback", "Give everybody reached the old content again", operatorv1.RolloutAction_ROLLOUT_ACTION_ROLLBACK))
}

// parseRing reads "name=C001,C002" or "name=25%".
func (s *session) parseRing(ctx context.Context, op operatorv1.OperatorServiceClient, text string) (*operatorv1.RolloutSpec_Ring, error) {
	name, what, ok := strings.Cut(text, "=")
	if !ok || name == "" || what == "" {
		return nil, fmt.Errorf("--ring %q: want name=25%% or name=C001,C002", text)
	}
	r := &operatorv1.RolloutSpec_Ring{Name: name}
	if share, ok := strings.CutSuffix(what, "%"); ok {
		n, err := strconv.ParseUint(share, 10, 8)
		if err != nil || n < 1 || n > 100 {
			return nil, fmt.Errorf("--ring %q: want 1%% to 100%%", text)
		}
		r.Percent = uint32(n)
		return r, nil
	}
	for c := range strings.SplitSeq(what, ",") {
		id, err := s.clinicID(ctx, op, c)
		if err != nil {
			return nil, err
		}
		r.ClinicIds = append(r.ClinicIds, id)
	}
	return r, nil
}

func (s *session) rolloutPlan() *cobra.Command {
	var plan, reason string
	var signatures bool
	var rings []string
	var soak, grace time.Duration
	spec := &operatorv1.RolloutSpec{Gates: &operatorv1.RolloutSpec_Gates{}}
	c := &cobra.Command{
		Use: "plan", Short: "Plan how a staged change reaches the clinics; nothing happens yet", Args: cobra.NoArgs,
		Long: "First stage a change: kadomori plan apply --stage, or kadomori signature publish --stage. Then plan its rollout, look at it, start it.\n" +
			"A ring is reached inside its clinics' quiet hours, must hold for the soak time, and halts everything when a gate is passed.",
		Example: "  kadomori rollout plan --plan standard --ring canary=C001,C007 --ring early=25% --ring all=100% --soak 2h --reason \"guest zone to prevent\"\n" +
			"  kadomori rollout plan --signatures --emergency \"worm in the wild\" --soak 5m --reason \"feed of today\"",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if (plan == "") == !signatures {
				return errors.New("give either --plan NAME or --signatures")
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			for _, text := range rings {
				r, err := s.parseRing(ctx, op, text)
				if err != nil {
					return err
				}
				spec.Rings = append(spec.Rings, r)
			}
			spec.SoakS, spec.GraceS = int64(soak/time.Second), int64(grace/time.Second)
			req := &operatorv1.CreateRolloutRequest{Kind: operatorv1.RolloutKind_ROLLOUT_KIND_POLICY, Plan: plan, Spec: spec, Reason: reason}
			if signatures {
				req.Kind = operatorv1.RolloutKind_ROLLOUT_KIND_SIGNATURE
			}
			resp, err := op.CreateRollout(ctx, req)
			if err != nil {
				return err
			}
			return s.print(resp.GetRollout(), func(t *table) {
				rolloutTable(t, resp.GetRollout())
				t.note += fmt.Sprintf("next: kadomori rollout start %d", resp.GetRollout().GetId())
			})
		},
	}
	f := c.Flags()
	f.StringVar(&plan, "plan", "", "the plan whose staged revision goes out")
	f.BoolVar(&signatures, "signatures", false, "the staged signatures go out")
	f.StringArrayVar(&rings, "ring", nil, "name=25% or name=C001,C002, in order (default: canary=5% early=25% all=100%)")
	f.DurationVar(&soak, "soak", 30*time.Minute, "how long a ring must hold")
	f.DurationVar(&grace, "grace", 10*time.Minute, "how long an appliance may take")
	f.StringVar(&reason, "reason", "", "why (needed)")
	f.StringVar(&spec.Emergency, "emergency", "", "a reason to disregard quiet hours")
	f.BoolVar(&spec.NoAutoRollback, "no-auto-rollback", false, "stay halted instead of turning back")
	f.Uint32Var(&spec.Gates.MaxFailedPercent, "max-failed", 0, "percent of a ring's appliances that may fail")
	f.Uint32Var(&spec.Gates.MaxUnprotectedMinutes, "max-unprotected", 5, "minutes an appliance may be unprotected")
	f.Float64Var(&spec.Gates.MaxBlockRatio, "max-block-ratio", 3, "blocks an hour against the last 7 days")
	f.Float64Var(&spec.Gates.MaxAlertRatio, "max-alert-ratio", 3, "alerts an hour against the last 7 days")
	_ = c.MarkFlagRequired("reason")
	return c
}

func rolloutTable(t *table, r *operatorv1.Rollout) {
	kind := "policy " + r.GetSubject()
	if r.GetKind() == operatorv1.RolloutKind_ROLLOUT_KIND_SIGNATURE {
		kind = "signatures"
	}
	t.row(fmt.Sprintf("rollout %d", r.GetId()), kind, fmt.Sprintf("%d -> %d", r.GetFromVersion(), r.GetToVersion()), r.GetState())
	t.gap()
	t.row("RING", "WAITING", "APPLIED", "OK", "FAILED", "OFFLINE", "REVERTED")
	for i, x := range r.GetRings() {
		name := x.GetName()
		if i == int(r.GetRing()) && r.GetState() == "running" {
			name += " (now)"
		}
		t.row(name, x.GetWaiting(), x.GetApplied(), x.GetOk(), x.GetFailed(), x.GetOffline(), x.GetReverted())
	}
	if len(r.GetGates()) > 0 {
		t.gap()
		t.row("GATE", "VALUE", "LIMIT", "VERDICT")
	}
	for _, g := range r.GetGates() {
		verdict := "passed"
		if !g.GetPassed() {
			verdict = "NOT PASSED"
		}
		t.row(g.GetName(), g.GetValue(), g.GetLimit(), verdict)
	}
	t.gap()
	for _, x := range r.GetTargets() {
		if x.GetDetail() != "" {
			t.row(fmt.Sprintf("appliance %d", x.GetApplianceId()), fmt.Sprintf("clinic %d", x.GetClinicId()), x.GetState(), x.GetDetail())
		}
	}
	if r.GetDetail() != "" {
		t.note = clean(r.GetDetail()) + "\n"
	}
}

func (s *session) rolloutList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the rollouts, newest first", Args: cobra.NoArgs, Example: "  kadomori rollout list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.ListRollouts(ctx, &operatorv1.ListRolloutsRequest{})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("ID", "SUBJECT", "FROM", "TO", "STATE", "RING", "BY", "CHANGED", "DETAIL")
				for _, r := range resp.GetRollouts() {
					t.row(r.GetId(), r.GetSubject(), r.GetFromVersion(), r.GetToVersion(), r.GetState(), r.GetRing()+1, r.GetAuthor(), r.GetChanged(), r.GetDetail())
				}
			})
		},
	}
}

func rolloutID(arg string) (int64, error) {
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || id < 1 {
		return 0, fmt.Errorf("rollout %q: want its number; kadomori rollout list shows them", arg)
	}
	return id, nil
}

func (s *session) rolloutControl(use, short string, action operatorv1.RolloutAction) *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: use + " ID", Short: short, Args: cobra.ExactArgs(1), Example: "  kadomori rollout " + use + " 4 --reason \"...\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := rolloutID(args[0])
			if err != nil {
				return err
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.ControlRollout(ctx, &operatorv1.ControlRolloutRequest{Id: id, Action: action, Reason: reason})
			if err != nil {
				return err
			}
			return s.print(resp.GetRollout(), func(t *table) {
				rolloutTable(t, resp.GetRollout())
				t.note += fmt.Sprintf("kadomori rollout watch %d follows it", id)
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	return c
}

func (s *session) rolloutWatch() *cobra.Command {
	var follow bool
	var every time.Duration
	c := &cobra.Command{
		Use: "watch ID", Short: "Show a rollout until it ends", Args: cobra.ExactArgs(1),
		Long:    "Prints the rollout whenever it changes and exits with 0 when it is done, with 1 when it was halted, aborted or turned back.",
		Example: "  kadomori rollout watch 4 --timeout 8h\n  kadomori rollout watch 4 --follow=false",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := rolloutID(args[0])
			if err != nil {
				return err
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			tick := time.NewTicker(every)
			defer tick.Stop()
			last := ""
			for {
				resp, err := op.GetRollout(ctx, &operatorv1.GetRolloutRequest{Id: id})
				if err != nil {
					return err
				}
				r := resp.GetRollout()
				if now := fmt.Sprint(r.GetState(), r.GetDetail(), r.GetRings()); now != last {
					last = now
					if err := s.print(r, func(t *table) { rolloutTable(t, r) }); err != nil {
						return err
					}
				}
				switch r.GetState() {
				case "done":
					return nil
				case "halted", "aborted", "rolled_back":
					if follow {
						return fmt.Errorf("rollout %d is %s: %s", id, r.GetState(), r.GetDetail())
					}
				}
				if !follow {
					return nil
				}
				select {
				case <-tick.C:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		},
	}
	c.Flags().BoolVar(&follow, "follow", true, "go on until it ends")
	c.Flags().DurationVar(&every, "every", 2*time.Second, "time between two looks")
	return c
}

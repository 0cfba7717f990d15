package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// pieceSize keeps messages well under the server's limit of 1 MiB.
const pieceSize = 512 << 10

// readInput reads a file, or standard input for "-".
func (s *session) readInput(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(s.stdin, 16<<20))
	}
	return os.ReadFile(file)
}

func (s *session) planCommand() *cobra.Command {
	var file, reason, clinic string
	var dryRun, stage bool
	var base uint64
	apply := &cobra.Command{
		Use: "apply NAME", Short: "Check a plan and publish it to the clinics that follow it", Args: cobra.ExactArgs(1),
		Long:    "Applying the same document again changes nothing. --dry-run shows what would change, for which clinics, and keeps nothing.",
		Example: "  kadomori plan apply standard -f standard.yaml --dry-run\n  kadomori plan apply standard -f standard.yaml --reason \"guest zone to prevent\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := s.readInput(file)
			if err != nil {
				return fmt.Errorf("-f: %w", err)
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.ApplyPlan(ctx, &operatorv1.ApplyPlanRequest{Name: args[0], Yaml: string(text), DryRun: dryRun, Reason: reason, BaseRevision: base, Stage: stage})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				verb := "published"
				switch {
				case dryRun:
					verb = "would be published"
				case stage:
					verb = "staged for a rollout"
				}
				t.note = fmt.Sprintf("%splan %s revision %d %s to %d clinics", resp.GetDiff(), args[0], resp.GetRevision(), verb, resp.GetClinics())
			})
		},
	}
	apply.Flags().StringVarP(&file, "file", "f", "", "plan document (YAML), - for standard input (needed)")
	apply.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	apply.Flags().BoolVar(&dryRun, "dry-run", false, "show the differences and keep nothing")
	apply.Flags().BoolVar(&stage, "stage", false, "store it and leave the clinics as they are, for kadomori rollout plan")
	apply.Flags().Uint64Var(&base, "base", 0, "revision the document was made from; refused when the plan has another by now")
	_ = apply.MarkFlagRequired("file")
	get := &cobra.Command{
		Use: "get NAME", Short: "Print a plan's document", Args: cobra.ExactArgs(1), Example: "  kadomori plan get standard > standard.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.GetPlan(ctx, &operatorv1.GetPlanRequest{Name: args[0]})
			if err != nil {
				return err
			}
			if s.output == "table" {
				_, err = io.WriteString(s.stdout, resp.GetYaml())
				return err
			}
			return s.print(resp, nil)
		},
	}
	explain := &cobra.Command{
		Use: "explain", Short: "Say for every effective setting of a clinic where it comes from", Args: cobra.NoArgs,
		Example: "  kadomori plan explain --clinic C001",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			id, err := s.clinicID(ctx, op, clinic)
			if err != nil {
				return err
			}
			resp, err := op.ExplainPolicy(ctx, &operatorv1.ExplainPolicyRequest{ClinicId: id})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("SETTING", "VALUE", "LAYER", "AUTHOR", "EXPIRES", "REASON")
				for _, x := range resp.GetSettings() {
					t.row(x.GetPath(), x.GetValue(), x.GetLayer(), x.GetAuthor(), x.GetExpires(), x.GetReason())
				}
			})
		},
	}
	clinicFlag(explain, &clinic, true)
	list := &cobra.Command{
		Use: "list", Short: "List plans and groups", Args: cobra.NoArgs, Example: "  kadomori plan list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.ListPlans(ctx, &operatorv1.ListPlansRequest{})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("NAME", "GROUP", "REVISION", "CLINICS", "AUTHOR", "CHANGED", "REASON")
				for _, p := range resp.GetPlans() {
					t.row(p.GetName(), p.GetGroup(), p.GetRevision(), p.GetClinics(), p.GetAuthor(), p.GetUpdated(), p.GetReason())
				}
			})
		},
	}
	return group("plan", "Policies shared by clinics", apply, get, list, explain)
}

func (s *session) overrideCommand() *cobra.Command {
	var file, reason, clinic string
	var lasts time.Duration
	set := func(cmd *cobra.Command, document string) error {
		ctx, op, err := s.open(cmd.Context())
		if err != nil {
			return err
		}
		req := &operatorv1.SetOverrideRequest{Yaml: document, Reason: reason}
		if req.ClinicId, err = s.clinicID(ctx, op, clinic); err != nil {
			return err
		}
		if lasts > 0 {
			req.Expires = timestamppb.New(time.Now().Add(lasts))
		}
		resp, err := op.SetOverride(ctx, req)
		if err != nil {
			return err
		}
		return s.print(resp, func(t *table) {
			t.note = "published; kadomori plan explain --clinic " + clinic + " shows the result"
		})
	}
	put := &cobra.Command{
		Use: "set", Short: "Replace a clinic's deviation from its plan", Args: cobra.NoArgs,
		Example: `  kadomori override set --clinic C001 -f c001.yaml --reason "vendor works on the NAS" --for 720h`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := s.readInput(file)
			if err != nil {
				return fmt.Errorf("-f: %w", err)
			}
			if strings.TrimSpace(string(text)) == "" {
				return errors.New("the document is empty; kadomori override lift takes an override away")
			}
			return set(cmd, string(text))
		},
	}
	put.Flags().StringVarP(&file, "file", "f", "", "override document (YAML), - for standard input (needed)")
	put.Flags().DurationVar(&lasts, "for", 0, "it ends by itself after this time (0: never)")
	_ = put.MarkFlagRequired("file")
	lift := &cobra.Command{
		Use: "lift", Short: "Take a clinic's override away", Args: cobra.NoArgs, Example: `  kadomori override lift --clinic C001 --reason "work is done"`,
		RunE: func(cmd *cobra.Command, _ []string) error { return set(cmd, "") },
	}
	for _, c := range []*cobra.Command{put, lift} {
		clinicFlag(c, &clinic, true)
		c.Flags().StringVar(&reason, "reason", "", "why (needed, shown by plan explain)")
		_ = c.MarkFlagRequired("reason")
	}
	return group("override", "One clinic's deviation from its plan", put, lift)
}

// kindOf finds a list's kind: what --kind says, or how the file's name begins.
func kindOf(name string, given map[string]string) (string, error) {
	stem, ext := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name)
	if ext != ".addresses" && ext != ".domains" {
		return "", nil
	}
	if k := cmp.Or(given[name], given[stem]); k != "" {
		return k, nil
	}
	for _, k := range []string{"c2", "malware", "bad-site", "scanner"} {
		if stem == k || strings.HasPrefix(stem, k+"-") || strings.HasPrefix(stem, k+".") {
			return k, nil
		}
	}
	return "", fmt.Errorf("%s: of which kind is the list? begin its name with c2-, malware-, bad-site- or scanner-, or give --kind %s=c2", name, stem)
}

func (s *session) signatureCommand() *cobra.Command {
	var reason string
	var stage bool
	kinds := map[string]string{}
	publish := &cobra.Command{
		Use: "publish FILE...", Short: "Check, sign and publish rules and lists to the fleet", Args: cobra.MinimumNArgs(1),
		Long: "The files given are the whole set: what is not among them is gone. Endings say what a file is:\n" +
			"  name.rules             Suricata-compatible rules\n" +
			"  name.addresses         one address or prefix a line\n" +
			"  name.domains           one domain a line; its sub-domains are meant as well\n" +
			"  classification.config  \"config classification: name,description,priority\" a line\n" +
			"The kind of a list (c2, malware, bad-site, scanner) is how its name begins, or what --kind says.",
		Example: "  kadomori signature publish et/*.rules classification.config c2-own.addresses malware.domains --reason \"weekly feed\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			var files []*operatorv1.SignatureFile
			for _, path := range args {
				content, err := os.ReadFile(path)
				if err != nil {
					return fmt.Errorf("read signatures: %w", err)
				}
				name := filepath.Base(path)
				kind, err := kindOf(name, kinds)
				if err != nil {
					return err
				}
				files = append(files, &operatorv1.SignatureFile{Name: name, ListKind: kind, Content: content})
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			stream, err := op.PublishSignatures(ctx)
			if err != nil {
				return err
			}
			if err := sendFiles(stream.Send, files, reason, stage); err != nil && !errors.Is(err, io.EOF) { // EOF: the answer says why
				return err
			}
			resp, err := stream.CloseAndRecv()
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("VERSION", "RULES", "ADDRESSES", "DOMAINS")
				t.row(resp.GetVersion(), resp.GetRules(), resp.GetAddresses(), resp.GetDomains())
			})
		},
	}
	publish.Flags().StringVar(&reason, "reason", "", "why, for the audit log")
	publish.Flags().BoolVar(&stage, "stage", false, "reach no appliance yet, for kadomori rollout plan --signatures")
	publish.Flags().StringToStringVar(&kinds, "kind", nil, "kind of a list: name=kind, may be repeated")
	return group("signature", "Rules and lists of the whole fleet", publish)
}

// sendFiles sends files in pieces.
func sendFiles(send func(*operatorv1.PublishSignaturesRequest) error, files []*operatorv1.SignatureFile, reason string, stage bool) error {
	for _, f := range files {
		rest := f.GetContent()
		for first := true; first || len(rest) > 0; first = false {
			n := min(len(rest), pieceSize)
			err := send(&operatorv1.PublishSignaturesRequest{
				Reason: reason, Stage: stage, Files: []*operatorv1.SignatureFile{{Name: f.GetName(), ListKind: f.GetListKind(), Content: rest[:n]}},
			})
			if err != nil {
				return err
			}
			rest = rest[n:]
		}
	}
	return nil
}

func (s *session) reportCommand() *cobra.Command {
	var clinic, month, out string
	request := &cobra.Command{
		Use: "request", Short: "Have the report of a month made", Args: cobra.NoArgs, Example: "  kadomori report request --clinic C001 --month 2026-10",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			id, err := s.clinicID(ctx, op, clinic)
			if err != nil {
				return err
			}
			resp, err := op.RequestReport(ctx, &operatorv1.RequestReportRequest{ClinicId: id, Month: month})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.note = "queued; kadomori report list --clinic " + clinic + " --month " + month + " shows it when it is done"
			})
		},
	}
	clinicFlag(request, &clinic, true)
	request.Flags().StringVar(&month, "month", "", "month, Japan time, like 2026-10 (needed)")
	_ = request.MarkFlagRequired("month")
	list := &cobra.Command{
		Use: "list", Short: "List the reports that were made", Args: cobra.NoArgs, Example: "  kadomori report list --month 2026-10",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			id, err := s.clinicID(ctx, op, clinic)
			if err != nil {
				return err
			}
			resp, err := op.ListReports(ctx, &operatorv1.ListReportsRequest{ClinicId: id, Month: month})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("ID", "CLINIC", "MONTH", "REVISION", "DOCUMENT", "VERDICT", "MADE")
				for _, r := range resp.GetReports() {
					t.row(r.GetId(), r.GetClinicId(), r.GetMonth(), r.GetRevision(), r.GetDocumentNo(), r.GetVerdict(), r.GetCreated())
				}
			})
		},
	}
	clinicFlag(list, &clinic, false)
	list.Flags().StringVar(&month, "month", "", "month, like 2026-10")
	get := &cobra.Command{
		Use: "get ID", Short: "Write a report's PDF to a file", Args: cobra.ExactArgs(1), Example: "  kadomori report get 12 --file C001-2026-10.pdf",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return fmt.Errorf("report %q: want its number; kadomori report list shows them", args[0])
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.GetReport(ctx, &operatorv1.GetReportRequest{Id: id})
			if err != nil {
				return err
			}
			if out == "" {
				out = fmt.Sprintf("report-%d-%s.pdf", resp.GetReport().GetClinicId(), resp.GetReport().GetMonth())
			}
			if err := os.WriteFile(out, resp.GetPdf(), 0o600); err != nil {
				return fmt.Errorf("write report: %w", err)
			}
			return s.print(resp.GetReport(), func(t *table) { t.note = "written to " + out })
		},
	}
	get.Flags().StringVarP(&out, "file", "f", "", "file to write (default: report-<clinic>-<month>.pdf)")
	return group("report", "Monthly reports", request, list, get)
}

func (s *session) ledgerCommand() *cobra.Command {
	var appliance int32
	c := &cobra.Command{
		Use: "ledger", Short: "Say of every event stream what was received and what is missing", Args: cobra.NoArgs,
		Example: "  kadomori ledger\n  kadomori ledger --appliance 7 --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			resp, err := op.GetLedger(ctx, &operatorv1.GetLedgerRequest{ApplianceId: appliance})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("APPLIANCE", "CLINIC", "STREAM", "STORED", "COMMITTED", "HIGHEST", "LOST (TOLD)", "LOST", "TWICE")
				for _, x := range resp.GetStreams() {
					t.row(x.GetApplianceId(), x.GetClinicId(), x.GetStreamId(), x.GetStored(), x.GetCommittedThrough(), x.GetHighest(),
						x.GetLostDeclared(), x.GetLostUndeclared(), x.GetDuplicates())
				}
			})
		},
	}
	c.Flags().Int32Var(&appliance, "appliance", 0, "one appliance only")
	return c
}

func (s *session) infectedCommand() *cobra.Command {
	var clinic, month string
	c := &cobra.Command{
		Use: "infected", Short: "List a clinic's devices under suspicion of infection", Args: cobra.NoArgs,
		Example: "  kadomori infected --clinic C001 --month 2026-10",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			id, err := s.clinicID(ctx, op, clinic)
			if err != nil {
				return err
			}
			resp, err := op.ListInfected(ctx, &operatorv1.ListInfectedRequest{ClinicId: id, Month: month})
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row("ADDRESS", "MAC", "NAME", "CERTAINTY", "SIGNALS", "FIRST", "LAST")
				for _, d := range resp.GetDevices() {
					t.row(d.GetIp(), d.GetMac(), d.GetName(), d.GetCertainty(), strings.Join(d.GetSignals(), " "), d.GetFirst(), d.GetLast())
				}
			})
		},
	}
	clinicFlag(c, &clinic, true)
	c.Flags().StringVar(&month, "month", "", "month, Japan time, like 2026-10 (default: all)")
	return c
}

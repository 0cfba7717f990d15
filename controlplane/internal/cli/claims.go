package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// replaceCommand makes the claim of a replacement.
func (s *session) replaceCommand() *cobra.Command {
	req := &operatorv1.CreateClaimRequest{}
	var ttl time.Duration
	c := &cobra.Command{
		Use: "replace ID", Short: "Make a claim for hardware that takes a broken appliance's place", Args: cobra.ExactArgs(1),
		Long: "The new hardware takes over clinic, policy and name. The old appliance keeps its identity until the new one is let in;\n" +
			"then it is retired: its certificates end and its connections are cut.",
		Example: "  kadomori appliance replace 7 --serial KM-2026-0107 --auto-approve",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := applianceID(args[0])
			if err != nil {
				return err
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			req.Replaces, req.TtlS = id, int64(ttl/time.Second)
			resp, err := op.CreateClaim(ctx, req)
			if err != nil {
				return err
			}
			return s.print(resp, func(t *table) {
				t.row(resp.GetClaim())
				t.note = fmt.Sprintf("claim %d, valid until %s; it is not shown again", resp.GetClaimId(), when(resp.GetExpires()))
			})
		},
	}
	c.Flags().StringVar(&req.ApplianceName, "name", "", "another name than the old one's")
	c.Flags().StringVar(&req.Serial, "serial", "", "only hardware of this serial may use the claim")
	c.Flags().BoolVar(&req.AutoApprove, "auto-approve", false, "let the new hardware in at once")
	c.Flags().DurationVar(&ttl, "ttl", 7*24*time.Hour, "how long the claim is valid")
	return c
}

// order is one line of a list of boxes.
type order struct {
	clinic, serial, name string
	line                 int
}

// readOrders reads "clinic,serial,name" with a header line; serial and name may be empty or absent.
func readOrders(r io.Reader) ([]order, error) {
	in := csv.NewReader(r)
	in.FieldsPerRecord = -1
	in.TrimLeadingSpace = true
	head, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	at := map[string]int{}
	for i, h := range head {
		h = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\ufeff"))) // spreadsheets write a byte order mark
		if h != "clinic" && h != "serial" && h != "name" {
			return nil, fmt.Errorf("line 1: column %q: want clinic, serial, name", h)
		}
		at[h] = i
	}
	if _, ok := at["clinic"]; !ok {
		return nil, errors.New("line 1: there is no column clinic; want clinic,serial,name")
	}
	var out []order
	serials := map[string]int{}
	for {
		rec, err := in.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read list: %w", err)
		}
		line, _ := in.FieldPos(0)
		get := func(col string) string {
			if i, ok := at[col]; ok && i < len(rec) {
				return strings.TrimSpace(rec[i])
			}
			return ""
		}
		o := order{get("clinic"), get("serial"), get("name"), line}
		if o.clinic == "" {
			return nil, fmt.Errorf("line %d: no clinic", line)
		}
		if first, twice := serials[o.serial]; twice && o.serial != "" {
			return nil, fmt.Errorf("line %d: serial %s stands on line %d as well", line, o.serial, first)
		}
		serials[o.serial] = line
		out = append(out, o)
	}
}

// importCommand makes the claims of many boxes at once, bound to their serials.
func (s *session) importCommand() *cobra.Command {
	var out string
	var ttl time.Duration
	c := &cobra.Command{
		Use: "import LIST.csv", Short: "Make claims for a list of boxes before they are shipped", Args: cobra.ExactArgs(1),
		Long: "The list has the columns clinic (code or id), serial, name. A box with a serial is let in at once when it shows its claim: the\n" +
			"list is the approval. One without waits for an operator. The claims are written to --out beside their lines, mode 0600;\n" +
			"put each on its box and ship it. The whole list is checked before the first claim is made.",
		Example: "  kadomori claim import shipment.csv --out claims.csv --ttl 1440h",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("open list: %w", err)
			}
			defer func() { _ = f.Close() }()
			orders, err := readOrders(f)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			ctx, op, err := s.open(cmd.Context())
			if err != nil {
				return err
			}
			clinics, err := allClinics(ctx, op)
			if err != nil {
				return err
			}
			ids := map[string]int32{}
			for _, c := range clinics {
				ids[strings.ToUpper(c.GetCode())], ids[fmt.Sprint(c.GetId())] = c.GetId(), c.GetId()
			}
			for _, o := range orders {
				if ids[strings.ToUpper(o.clinic)] == 0 {
					return fmt.Errorf("%s line %d: there is no clinic %q; nothing was made", args[0], o.line, o.clinic)
				}
			}
			dst, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return fmt.Errorf("--out: %w", err)
			}
			w := csv.NewWriter(dst)
			err = w.Write([]string{"clinic", "serial", "name", "claim", "expires"})
			for _, o := range orders {
				if err != nil {
					break
				}
				resp, callErr := op.CreateClaim(ctx, &operatorv1.CreateClaimRequest{
					ClinicId: ids[strings.ToUpper(o.clinic)], ApplianceName: o.name, Serial: o.serial, AutoApprove: o.serial != "", TtlS: int64(ttl / time.Second),
				})
				if callErr != nil {
					err = fmt.Errorf("%s line %d: %w; the claims made before are in %s", args[0], o.line, callErr, out)
					break
				}
				err = w.Write([]string{o.clinic, o.serial, o.name, resp.GetClaim(), resp.GetExpires().AsTime().Format(time.RFC3339)})
				w.Flush()
			}
			w.Flush()
			if err = errors.Join(err, w.Error(), dst.Close()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.stdout, "%d claims are in %s\n", len(orders), out)
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to write, must not exist (needed)")
	c.Flags().DurationVar(&ttl, "ttl", 60*24*time.Hour, "how long the claims are valid")
	_ = c.MarkFlagRequired("out")
	return c
}

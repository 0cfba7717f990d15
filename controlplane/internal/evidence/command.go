package evidence

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
)

// ErrDifferent is what Command returns when evidence and rows differ; the differences were printed.
var ErrDifferent = errors.New("evidence and rows differ")

// Command is "evidence verify". begin runs fn in a transaction that sees the clinic's rows; the program that mounts the command knows how.
func Command(begin func(ctx context.Context, clinic int32, fn func(pgx.Tx) error) error) *cobra.Command {
	root := &cobra.Command{Use: "evidence", Short: "Prove that stored events are complete and unchanged", Args: cobra.NoArgs}
	var clinic int32
	var from, to string
	verify := &cobra.Command{
		Use: "verify", Short: "Recompute the daily digests of a clinic and name the first difference", Args: cobra.NoArgs,
		Example: "  evidence verify --clinic 1 --from 2026-11-01 --to 2026-11-30",
		RunE: func(cmd *cobra.Command, _ []string) error {
			first, err := ParseDay(from)
			if err != nil {
				return fmt.Errorf("--from: %w", err)
			}
			last, err := ParseDay(to)
			if err != nil {
				return fmt.Errorf("--to: %w", err)
			}
			if last.Before(first.Time) {
				return fmt.Errorf("--to %s is before --from %s", last, first)
			}
			var res *Result
			if err := begin(cmd.Context(), clinic, func(tx pgx.Tx) error {
				var err error
				res, err = Verify(cmd.Context(), tx, clinic, first, last)
				return err
			}); err != nil {
				return err
			}
			if err := res.Print(cmd.OutOrStdout()); err != nil {
				return err
			}
			if len(res.Problems) > 0 {
				return ErrDifferent
			}
			return nil
		},
	}
	yesterday := Day{DayOf(time.Now()).AddDate(0, 0, -1)}
	verify.Flags().Int32Var(&clinic, "clinic", 0, "number of the clinic")
	verify.Flags().StringVar(&from, "from", yesterday.AddDate(0, 0, -30).Format(time.DateOnly), "first day of receipt, Japan time")
	verify.Flags().StringVar(&to, "to", yesterday.String(), "last day of receipt")
	_ = verify.MarkFlagRequired("clinic") // the flag is there: it was made three lines above
	root.AddCommand(verify)
	return root
}

// Print writes the result for people.
func (r *Result) Print(w io.Writer) error {
	if r.Days == 0 && len(r.Problems) == 0 {
		_, err := fmt.Fprintf(w, "clinic %d, %s to %s: no day is sealed yet\n", r.Clinic, r.From, r.To)
		return err
	}
	for i, p := range r.Problems {
		label := "also"
		if i == 0 {
			label = "FIRST DIFFERENCE"
		}
		if _, err := fmt.Fprintf(w, "%s  %s\n", label, p); err != nil {
			return err
		}
	}
	if n := len(r.Deleted); n > 0 {
		if _, err := fmt.Fprintf(w, "deleted by retention: events of %d days, %s to %s (see the deletion log); their links are intact\n", n, r.Deleted[0], r.Deleted[n-1]); err != nil {
			return err
		}
	}
	verdict := "intact"
	if len(r.Problems) > 0 {
		verdict = fmt.Sprintf("%d differences", len(r.Problems))
	}
	_, err := fmt.Fprintf(w, "clinic %d, %s to %s: %d days, %d events read: %s\nlast link %s\n", r.Clinic, r.From, r.To, r.Days, r.Events, verdict, hex.EncodeToString(r.Hash))
	return err
}

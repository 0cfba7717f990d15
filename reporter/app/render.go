package app

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/reporter/internal/month"
	"github.com/kadomori/kadomori/reporter/internal/query"
)

func renderCommand(load func() (Config, error), logger func(*Config), stdout io.Writer) *cobra.Command {
	var (
		clinic                    int32
		monthText, dsn, now       string
		outPDF, outHTML, outFacts string
		freeze                    bool
		format                    Format
	)
	cmd := &cobra.Command{
		Use:   "render --clinic N --month YYYY-MM --out F.pdf",
		Short: "Make one report",
		Long: "Make one report of one clinic and write it to files. Nothing is stored in the database unless --freeze is given;\n" +
			"then the report becomes the month's next revision, as when it is asked for in the console.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load()
			if err != nil {
				return err
			}
			if dsn != "" {
				cfg.DSN, cfg.DSNFile = dsn, ""
			}
			if err := cfg.Validate(); err != nil {
				return err
			}
			if outPDF == "" && outHTML == "" && outFacts == "" && !freeze {
				return errors.New("nothing to do: give --out, --html, --facts or --freeze")
			}
			if freeze && (format.Variant != Monthly || format.PDF != "pdf/a-3b") {
				return errors.New("only the whole report as PDF/A is frozen: leave out --variant and --pdf")
			}
			m, err := month.Parse(monthText)
			if err != nil {
				return err
			}
			if now != "" {
				t, err := time.Parse(time.RFC3339, now)
				if err != nil {
					return fmt.Errorf("read --now: %w", err)
				}
				cfg.Now = func() time.Time { return t }
			}
			logger(&cfg)
			r, err := NewReporter(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer r.Close()
			var out *Report
			if freeze {
				out, err = r.Freeze(cmd.Context(), clinic, m)
			} else {
				out, err = r.Make(cmd.Context(), clinic, m, format)
			}
			if err != nil {
				return err
			}
			if err := writeFiles(out, outPDF, outHTML, outFacts); err != nil {
				return err
			}
			_, err = fmt.Fprintf(stdout, "%s revision %d: %s, %d bytes, data sha256 %x, pdf sha256 %x\n",
				out.Facts.DocumentNo, out.Facts.Revision, out.Facts.Verdict, len(out.PDF), out.DataSHA, out.PDFSHA)
			return err
		},
	}
	f := cmd.Flags()
	f.Int32Var(&clinic, "clinic", 0, "clinic `id`")
	f.StringVar(&monthText, "month", "", "month as `YYYY-MM`, Japan time")
	f.StringVar(&outPDF, "out", "", "write the PDF to this `file`")
	f.StringVar(&outHTML, "html", "", "write the web page to this `file`")
	f.StringVar(&outFacts, "facts", "", "write the facts (JSON, the bytes whose digest is printed) to this `file`")
	f.BoolVar(&freeze, "freeze", false, "store the report as the month's next revision")
	f.StringVar(&format.Variant, "variant", Monthly, "`what` to make: monthly, summary (page 1 for the director) or flash (same-day report of an incident)")
	f.StringVar(&format.PDF, "pdf", "pdf/a-3b", "`kind` of PDF: pdf/a-3b for keeping, pdf/ua-1 for screen readers")
	f.StringVar(&dsn, "dsn", "", "database, instead of the configuration's")
	f.StringVar(&now, "now", "", "make the report as of this moment (RFC 3339), for the same bytes again")
	_ = cmd.MarkFlagRequired("clinic")
	_ = cmd.MarkFlagRequired("month")
	return cmd
}

func annualCommand(load func() (Config, error), logger func(*Config), stdout io.Writer) *cobra.Command {
	var (
		clinic                    int32
		year                      int
		outPDF, outHTML, outFacts string
	)
	cmd := &cobra.Command{
		Use:   "annual --clinic N --year YYYY --out F.pdf",
		Short: "Make the report of a fiscal year (April to March) out of its frozen monthly reports",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := open(cmd, load, logger)
			if err != nil {
				return err
			}
			defer r.Close()
			out, err := r.Annual(cmd.Context(), clinic, year)
			if err != nil {
				return err
			}
			if err := writeFiles(out, outPDF, outHTML, outFacts); err != nil {
				return err
			}
			_, err = fmt.Fprintf(stdout, "fiscal year %d: %d bytes, data sha256 %x, pdf sha256 %x\n", year, len(out.PDF), out.DataSHA, out.PDFSHA)
			return err
		},
	}
	f := cmd.Flags()
	f.Int32Var(&clinic, "clinic", 0, "clinic `id`")
	f.IntVar(&year, "year", 0, "fiscal `year`: 2026 is April 2026 to March 2027")
	f.StringVar(&outPDF, "out", "", "write the PDF to this `file`")
	f.StringVar(&outHTML, "html", "", "write the web page to this `file`")
	f.StringVar(&outFacts, "facts", "", "write the facts to this `file`")
	_ = cmd.MarkFlagRequired("clinic")
	_ = cmd.MarkFlagRequired("year")
	_ = cmd.MarkFlagRequired("out")
	return cmd
}

func verifyCommand(load func() (Config, error), logger func(*Config), stdout io.Writer) *cobra.Command {
	var (
		clinic    int32
		monthText string
	)
	cmd := &cobra.Command{
		Use:   "verify --clinic N --month YYYY-MM",
		Short: "Check that the frozen reports of a month still give the digests that are printed on them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			m, err := month.Parse(monthText)
			if err != nil {
				return err
			}
			r, err := open(cmd, load, logger)
			if err != nil {
				return err
			}
			defer r.Close()
			list, err := query.Frozen(cmd.Context(), r.pool, clinic, m)
			if err != nil {
				return err
			}
			if len(list) == 0 {
				return fmt.Errorf("verify reports of clinic %d for %s: none is frozen", clinic, m)
			}
			var bad []error
			for _, f := range list {
				state := "genuine"
				if err := f.Verify(); err != nil {
					state = "ALTERED"
					bad = append(bad, fmt.Errorf("%s revision %d: %w", f.DocumentNo, f.Revision, err))
				}
				if _, err := fmt.Fprintf(stdout, "%s revision %d: %s, data sha256 %x\n", f.DocumentNo, f.Revision, state, f.DataSHA); err != nil {
					return err
				}
			}
			return errors.Join(bad...)
		},
	}
	cmd.Flags().Int32Var(&clinic, "clinic", 0, "clinic `id`")
	cmd.Flags().StringVar(&monthText, "month", "", "month as `YYYY-MM`")
	_ = cmd.MarkFlagRequired("clinic")
	_ = cmd.MarkFlagRequired("month")
	return cmd
}

// open makes a reporter from the configuration.
func open(cmd *cobra.Command, load func() (Config, error), logger func(*Config)) (*Reporter, error) {
	cfg, err := load()
	if err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	logger(&cfg)
	return NewReporter(cmd.Context(), cfg)
}

func writeFiles(out *Report, pdf, html, facts string) error {
	for _, f := range []struct {
		name string
		data []byte
	}{{pdf, out.PDF}, {html, out.HTML}, {facts, out.JSON}} {
		if f.name == "" {
			continue
		}
		if err := writeFile(f.name, f.data); err != nil {
			return err
		}
	}
	return nil
}

// writeFile puts the file in place whole or not at all.
func writeFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err := errors.Join(err, f.Chmod(0o640), f.Close()); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

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
)

func renderCommand(load func() (Config, error), logger func(*Config), stdout io.Writer) *cobra.Command {
	var (
		clinic                    int32
		monthText, dsn, now       string
		outPDF, outHTML, outFacts string
		freeze                    bool
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
				out, err = r.Make(cmd.Context(), clinic, m)
			}
			if err != nil {
				return err
			}
			for _, f := range []struct {
				name string
				data []byte
			}{{outPDF, out.PDF}, {outHTML, out.HTML}, {outFacts, out.JSON}} {
				if f.name == "" {
					continue
				}
				if err := writeFile(f.name, f.data); err != nil {
					return err
				}
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
	f.StringVar(&dsn, "dsn", "", "database, instead of the configuration's")
	f.StringVar(&now, "now", "", "make the report as of this moment (RFC 3339), for the same bytes again")
	_ = cmd.MarkFlagRequired("clinic")
	_ = cmd.MarkFlagRequired("month")
	return cmd
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

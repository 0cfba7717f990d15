// Package cli is kadomori, the operator's command line: it speaks OperatorService and prints tables or JSON. The program
// kadomori calls Main. The trap: JSON output is a contract with scripts; it is the response message with the names of the .proto files.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	operatorv1 "github.com/kadomori/kadomori/proto/gen/kadomori/operator/v1"
)

// Main runs the program; it returns the exit code. args are without the program's name.
func Main(args []string, version string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	s := &session{stdin: stdin, stdout: stdout, stderr: stderr}
	defer s.close()
	root := s.root(version)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		_, _ = fmt.Fprintln(stderr, "kadomori: "+s.explain(err))
		return 1
	}
	return 0
}

func (s *session) root(version string) *cobra.Command {
	root := &cobra.Command{
		Use: "kadomori", Short: "Operate a fleet of Kadomori appliances", Version: version,
		Long: "kadomori talks to a control plane. Log in once, then every command uses that login:\n\n" +
			"  kadomori login --server control.example.jp:7443 --user admin\n\n" +
			"In scripts, --ca, --user and --password-file log in for one command and leave nothing behind.",
		SilenceUsage: true, SilenceErrors: true,
	}
	f := root.PersistentFlags()
	f.StringVar(&s.server, "server", os.Getenv("KADOMORI_SERVER"), "control plane, host:port (default: that of the login)")
	f.StringVar(&s.caFile, "ca", os.Getenv("KADOMORI_CA"), "certificate authority of the control plane, PEM file (default: that of the login)")
	f.StringVar(&s.user, "user", os.Getenv("KADOMORI_USER"), "operator's name; with --password-file it logs in for this command alone")
	f.StringVar(&s.passwordFile, "password-file", os.Getenv("KADOMORI_PASSWORD_FILE"), "file with the password")
	f.StringVarP(&s.output, "output", "o", "table", "table, json or yaml")
	f.DurationVar(&s.timeout, "timeout", time.Minute, "give up after this time")
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		switch s.output {
		case "table", "json", "yaml":
			return nil
		}
		return fmt.Errorf("--output %q: want table, json or yaml", s.output)
	}
	root.AddCommand(s.loginCommand(), s.logoutCommand(), s.clinicCommand(), s.claimCommand(), s.applianceCommand(), s.deviceCommand(),
		s.planCommand(), s.groupCommand(), s.overrideCommand(), s.signatureCommand(), s.rolloutCommand(), s.settingCommand(), s.commandCommand(), s.reportCommand(), s.ledgerCommand(), s.infectedCommand())
	return root
}

// group is a command that only holds others.
func group(use, short string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	c.AddCommand(sub...)
	return c
}

// explain turns an error into a sentence that says what to do next.
func (s *session) explain(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("no answer within %s from %s; is it running? --timeout waits longer", s.timeout, s.server)
	}
	st, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	switch st.Code() {
	case codes.Unavailable:
		if strings.Contains(st.Message(), "certificate") {
			return fmt.Sprintf("%s is not the control plane of this login: %s\nlog in again if its authority was replaced on purpose: kadomori login --server %s", s.server, st.Message(), s.server)
		}
		return fmt.Sprintf("can't reach the control plane at %s: %s\ncheck --server, and that kadomori-control runs there", s.server, st.Message())
	case codes.Unauthenticated:
		if strings.Contains(st.Message(), "log in") {
			return st.Message() + "\nrun: kadomori login --server " + s.server
		}
		return st.Message()
	case codes.DeadlineExceeded:
		return fmt.Sprintf("no answer within %s from %s; is it running? --timeout waits longer", s.timeout, s.server)
	default:
		return st.Message()
	}
}

// clinicFlag adds --clinic, an id or a code.
func clinicFlag(c *cobra.Command, to *string, needed bool) {
	c.Flags().StringVar(to, "clinic", "", "clinic, by code (C001) or id")
	if needed {
		_ = c.MarkFlagRequired("clinic")
	}
}

// clinicID finds a clinic by id or code.
func (s *session) clinicID(ctx context.Context, op operatorv1.OperatorServiceClient, text string) (int32, error) {
	if text == "" {
		return 0, nil
	}
	var id int32
	if _, err := fmt.Sscanf(text, "%d", &id); err == nil && fmt.Sprint(id) == text {
		return id, nil
	}
	list, err := allClinics(ctx, op)
	if err != nil {
		return 0, err
	}
	for _, c := range list {
		if strings.EqualFold(c.GetCode(), text) {
			return c.GetId(), nil
		}
	}
	return 0, fmt.Errorf("there is no clinic %q; kadomori clinic list shows them", text)
}

func allClinics(ctx context.Context, op operatorv1.OperatorServiceClient) ([]*operatorv1.Clinic, error) {
	var out []*operatorv1.Clinic
	token := ""
	for {
		resp, err := op.ListClinics(ctx, &operatorv1.ListClinicsRequest{PageSize: 1000, PageToken: token})
		if err != nil {
			return nil, err
		}
		out = append(out, resp.GetClinics()...)
		if token = resp.GetNextPageToken(); token == "" {
			return out, nil
		}
	}
}

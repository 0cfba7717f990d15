package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/kadomori/kadomori/dataplane/internal/enrol"
)

// Main runs the program with its arguments and returns the exit code: 0, or 1 with one error on stderr.
func Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := rootCommand()
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "kadomori-agent: %v\n", err) //nolint:errcheck // there is nowhere left to say it
		return 1
	}
	return 0
}

func rootCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "kadomori-agent",
		Short:         "The program on a Kadomori appliance: a transparent wire that inspects, protects and tells",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.PersistentFlags().StringP("config", "f", DefaultConfig, "configuration file")
	cmd.AddCommand(runCommand(), enrollCommand(), inspectCommand(), rulesCommand(), statusCommand(), selfTestCommand(), bypassCommand(), validateCommand(), versionCommand())
	return cmd
}

// config reads the file named by --config. The default file may be missing.
func config(cmd *cobra.Command) (Config, error) {
	flag := cmd.Flag("config")
	cfg, err := ReadConfig(flag.Value.String())
	if errors.Is(err, os.ErrNotExist) && !flag.Changed {
		return cfg, cfg.validate()
	}
	return cfg, err
}

func runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run",
		Short: "Be the appliance until SIGTERM",
		Long: "Attach the wire to the two ports, inspect what passes, keep events on disk and talk to the control plane.\n" +
			"On SIGTERM the wire stays attached: traffic flows on, with the block sets in force.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config(cmd)
			if err != nil {
				return err
			}
			return RunWithLog(cmd.Context(), cfg, cmd.ErrOrStderr())
		},
	}
}

func enrollCommand() *cobra.Command {
	var text, file string
	cmd := &cobra.Command{
		Use:   "enroll [--claim TEXT | --claim-file FILE]",
		Short: "Exchange a claim for this appliance's identity",
		Long: "Exchange a claim for this appliance's identity. Without flags the claim is read from the configuration's claim_file.\n" +
			"With `--claim -` it is read from standard input, so that it stands in no shell history.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config(cmd)
			if err != nil {
				return err
			}
			if id, err := enrol.Load(cfg.identityDir(), cfg.keyStore()); err == nil {
				return fmt.Errorf("enrol: this is appliance %d of clinic %d already; remove %s to begin anew", id.Appliance(), id.Clinic(), cfg.identityDir())
			} else if !errors.Is(err, enrol.ErrNone) {
				return err
			}
			switch text {
			case "-":
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("read claim: %w", err)
				}
				text = string(b)
			case "":
				if file == "" {
					file = cfg.ClaimFile
				}
				if text, err = readClaim(file); err != nil {
					return err
				}
			}
			a := &agent{cfg: cfg, log: cfg.logger(cmd.ErrOrStderr())}
			id, err := enrol.Enrol(cmd.Context(), a.enrolConfig(text))
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Enrolled as appliance %d of clinic %d. Certificate until %s.\n",
				id.Appliance(), id.Clinic(), id.NotAfter().Local().Format(time.DateTime))
			return err
		},
	}
	cmd.Flags().StringVar(&text, "claim", "", "claim text (kdm1-...), or - for standard input")
	cmd.Flags().StringVar(&file, "claim-file", "", "file with the claim text")
	cmd.MarkFlagsMutuallyExclusive("claim", "claim-file")
	return cmd
}

func statusCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what the running agent does",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config(cmd)
			if err != nil {
				return err
			}
			b, err := call(cmd.Context(), cfg.socket(), http.MethodGet, "/status", nil)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				_, err = cmd.OutOrStdout().Write(b)
				return err
			case "table":
				var s Status
				if err := json.Unmarshal(b, &s); err != nil {
					return fmt.Errorf("read status: %w", err)
				}
				return writeStatus(cmd.OutOrStdout(), &s)
			default:
				return fmt.Errorf("--output: %q is neither table nor json", output)
			}
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

func selfTestCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "selftest",
		Short: "Make one synthetic detection through the whole path now",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config(cmd)
			if err != nil {
				return err
			}
			b, err := call(cmd.Context(), cfg.socket(), http.MethodPost, "/self-test", nil)
			if err != nil {
				return err
			}
			var res selfTestResult
			if err := json.Unmarshal(b, &res); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			if !res.Passed {
				return fmt.Errorf("self-test did not pass: %s", res.Detail)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Self-test passed: %s. The event is on its way.\n", res.Detail)
			return err
		},
	}
}

func bypassCommand() *cobra.Command {
	var limit time.Duration
	cmd := &cobra.Command{
		Use:       "bypass on|off",
		Short:     "Forward everything uninspected for a while, block sets included",
		Long:      "Forward everything uninspected until the limit has passed. The kernel keeps the limit, and the time is told as unprotected.",
		ValidArgs: []string{"on", "off"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := config(cmd)
			if err != nil {
				return err
			}
			body, err := json.Marshal(bypassRequest{On: args[0] == "on", Seconds: int(limit / time.Second)})
			if err != nil {
				return fmt.Errorf("encode request: %w", err)
			}
			if _, err := call(cmd.Context(), cfg.socket(), http.MethodPost, "/bypass", body); err != nil {
				return err
			}
			said := "Bypass is off."
			if args[0] == "on" {
				said = fmt.Sprintf("Bypass is on for %s: nothing is inspected or blocked.", limit)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
			return err
		},
	}
	cmd.Flags().DurationVar(&limit, "for", 10*time.Minute, "how long, 1s to 24h")
	return cmd
}

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate",
		Short: "Check the configuration file without starting",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := ReadConfig(cmd.Flag("config").Value.String())
			if err != nil {
				return err
			}
			if err := cfg.checkPorts(); err != nil {
				return fmt.Errorf("check configuration: %w", err)
			}
			for _, p := range []string{cfg.Ports.LAN, cfg.Ports.WAN} {
				if p == "" {
					continue
				}
				if _, err := net.InterfaceByName(p); err != nil {
					if _, err := fmt.Fprintf(cmd.OutOrStdout(), "note: there is no interface %s now\n", p); err != nil {
						return err
					}
				}
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "The configuration is good.")
			return err
		},
	}
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "kadomori-agent %s %s/%s %s\n", Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}

// call asks the running agent.
func call(ctx context.Context, socket, method, path string, body []byte) ([]byte, error) {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask agent: %w", err)
	}
	res, err := client.Do(req)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("no agent answers at %s; does it run (kadomori-agent run)?", socket)
		}
		if errors.Is(err, os.ErrPermission) {
			return nil, fmt.Errorf("only root may ask the agent at %s", socket)
		}
		return nil, fmt.Errorf("ask agent: %w", err)
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	b, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("ask agent: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(b)))
	}
	return b, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"k3splan/internal/k3s"
	"k3splan/internal/plan"
	"k3splan/internal/secrets"
	"k3splan/internal/sshconf"
)

func (a *app) tokenCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "token",
		Short: "The tokens by which servers and agents join the cluster",
		Long: `A server token and an agent token are made by k3splan setup, once. k3s encrypts its datastore's
bootstrap data with the server token, so it cannot simply be replaced in its file: rotate does it
together with a running server.`,
		Example: "  k3splan token rotate\n  k3splan token show --agent",
	}, a.tokenShowCommand(), a.tokenRotateCommand(), a.tokenAdoptCommand(), a.tokenPushCommand())
}

func (a *app) tokenShowCommand() *cobra.Command {
	var agent, server bool
	command := &cobra.Command{
		Use:     "show --agent|--server",
		Short:   "Print a token",
		Long:    "Prints a token, on purpose and nothing else. Without an agent token, agents join with that of the servers.",
		Example: "  k3splan token show --agent",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			kind := secrets.InitToken
			switch {
			case agent == server:
				return usageError(errors.New("say which token: --agent or --server"))
			case agent:
				kind = secrets.AgentToken
			}
			_, vault, err := a.vault(a.asker())
			if err != nil {
				return err
			}
			content, err := vault.Read(string(kind))
			if errors.Is(err, fs.ErrNotExist) && agent {
				return &exitError{code: exitFailed, err: errors.New("there is no agent token: agents join with that of the servers"), hint: "k3splan token show --server"}
			} else if err != nil {
				return err
			}
			if problems := secrets.CheckToken(kind, content); problems.Errors() > 0 {
				problems[0].File = vault.At(string(kind))
				a.printProblems(a.stderr, problems)
				return invalid()
			}
			_, err = fmt.Fprintln(a.stdout, strings.TrimSpace(string(content)))
			return err
		},
	}
	command.Flags().BoolVar(&agent, "agent", false, "the token that lets agents join")
	command.Flags().BoolVar(&server, "server", false, "the token that lets servers join")
	return command
}

func (a *app) tokenRotateCommand() *cobra.Command {
	var o rotation
	command := &cobra.Command{
		Use:   "rotate",
		Short: "Give the cluster a new server token",
		Long: `Lets k3s itself rotate the server token on a running server (k3s token rotate): k3s makes the new one.
k3splan then

  - has the server log in with the new token, and only then replaces
    secrets/init-token;
  - brings it to all hosts with a server, and to those with an agent that has no
    token of its own;
  - keeps the old one in secrets/retired: restoring an older snapshot of etcd
    needs it.

Servers take the new token when they start again: the next deploy restarts them one after the other,
or at once with --restart, each after the one before is ready. No token appears in an argument, in the environment or on the screen.`,
		Example: "  k3splan token rotate\n  k3splan token rotate --server ulf --restart --yes",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.rotateToken(o) },
	}
	o.flags(a, command)
	command.Flags().BoolVar(&o.restart, "restart", false, "restart the servers afterwards, one after the other")
	return command
}

func (a *app) tokenAdoptCommand() *cobra.Command {
	var o rotation
	command := &cobra.Command{
		Use:   "adopt",
		Short: "Take over the server token of the living cluster",
		Long: `Fetches the server token that is good now from a running server, has the server log in with it, and
puts it into secrets/init-token. It is for a clone without secrets, and after a rotation that was
interrupted or made by hand. A token that was in the file is kept in secrets/retired.`,
		Example: "  k3splan token adopt\n  k3splan token adopt --server ulf",
		Args:    usageArgs(cobra.NoArgs),
		RunE:    func(*cobra.Command, []string) error { return a.adoptToken(o) },
	}
	o.flags(a, command)
	return command
}

func (a *app) tokenPushCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "push",
		Short: "Bring the server token to the hosts again",
		Long: `Brings secrets/init-token to all hosts with a server, and to those with an agent that has no token of
its own, after a rotation during which some were not reachable. It is brought only if it is the one
that a running server takes.`,
		Example: "  k3splan token push",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) (err error) {
			c, err := a.openCluster("")
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, c.close()) }()
			content, err := c.ownToken()
			if err != nil {
				return err
			}
			return c.push(context.Background(), content)
		},
	}
}

// rotation is what the user says about a new token.
type rotation struct {
	server       string
	yes, restart bool
}

func (o *rotation) flags(a *app, command *cobra.Command) {
	command.Flags().StringVar(&o.server, "server", "", "ask the server `NAME`, or the one on this host (default: the init server, else any)")
	command.Flags().BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	_ = command.RegisterFlagCompletionFunc("server", a.completeServers)
}

// cluster is the living one, seen through one of its servers.
type cluster struct {
	*machines
	unlock func() // the project
	conf   *sshconf.Config
	vault  *secrets.Vault
	// server is the one that answered, via its container row.
	server    k3s.Server
	container *plan.Container
	// token is the server's, in its full form; password is its secret part.
	token, password string
}

// openCluster finds a server that tells its token. All servers' hosts must be known. What it gives is
// to be closed.
func (a *app) openCluster(name string) (_ *cluster, err error) {
	m, err := a.machines()
	if err != nil {
		return nil, err
	}
	servers, err := m.servers(name)
	if err != nil {
		return nil, err
	}
	var hosts []*plan.Host
	for _, server := range servers {
		hosts = append(hosts, server.Host)
	}
	c := &cluster{machines: m}
	if c.vault, err = m.vault(); err != nil {
		return nil, err
	}
	// a deploy meanwhile would bring the old token, or half of the new one
	if c.unlock, err = lockProject(m.dir); err != nil {
		return nil, err
	}
	if c.conf, err = m.prepare(hosts...); err != nil {
		c.unlock()
		return nil, err
	}
	var failed error
	for _, container := range servers {
		c.container, c.server = container, c.at(container)
		if c.token, err = c.server.Token(context.Background()); err == nil {
			break
		}
		failed = errors.Join(failed, err)
	}
	if err == nil {
		if c.password, err = secrets.TokenPassword(secrets.InitToken, []byte(c.token)); err != nil {
			failed = fmt.Errorf("the token of %s %w", c.container.Name, err)
		}
	}
	if err != nil {
		return nil, errors.Join(failed, c.close())
	}
	return c, nil
}

func (c *cluster) close() error {
	defer c.unlock()
	return c.conf.Close()
}

func (c *cluster) at(server *plan.Container) k3s.Server {
	return k3s.Server{Container: server.Name, Run: func(ctx context.Context, stdin string, command ...string) (string, error) {
		out, err := c.conf.Machine(server.Host, sshconf.DeployUser).Run(ctx, stdin, command...)
		return out, c.scrub(err)
	}}
}

// scrub takes the token out of an error, whoever put it there.
func (c *cluster) scrub(err error) error {
	if err == nil || c.password == "" || !strings.Contains(err.Error(), c.password) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), c.password, "[token]"))
}

// initToken is the place of the project's token.
func (c *cluster) initToken() string { return c.vault.At(string(secrets.InitToken)) }

// ownToken is the content of the project's file, if it is the cluster's token.
func (c *cluster) ownToken() (content []byte, err error) {
	content, err = c.vault.Read(string(secrets.InitToken))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	password := ""
	if err == nil {
		if password, err = secrets.TokenPassword(secrets.InitToken, content); err != nil {
			return nil, fmt.Errorf("%s %w", c.initToken(), err)
		}
	}
	if password != c.password {
		return nil, &exitError{code: exitFailed, err: fmt.Errorf("%s is not the token of the living cluster (asked %s); nothing was changed", c.initToken(), c.container.Name),
			hint: "after an interrupted rotation, or in a clone without secrets: k3splan token adopt"}
	}
	return content, nil
}

func (a *app) rotateToken(o rotation) (err error) {
	ctx := context.Background()
	c, err := a.openCluster(o.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	content, err := c.ownToken()
	if err != nil {
		return err
	}
	if !o.yes {
		a.say("%s lets the cluster take a new server token. Servers that are down now cannot start again\nbefore they get it (k3splan token push).", c.container.Name)
	}
	if err := a.consent("rotate the token?", o.yes); err != nil {
		return err
	}
	kept, err := c.vault.Retire(string(secrets.InitToken), time.Now())
	if err != nil {
		return err
	}
	old := c.password
	rotated := c.server.RotateToken(ctx)
	// an interrupted connection does not tell whether it was done: the server does
	if err := c.refresh(ctx); err != nil {
		return &exitError{code: exitFailed, err: errors.Join(rotated, err), hint: "whether the token was rotated is not known; when the server answers again: k3splan token adopt"}
	}
	if c.password == old {
		if rotated == nil {
			rotated = fmt.Errorf("%s says that it rotated the token, and has the same one as before", c.container.Name)
		}
		return errors.Join(rotated, c.vault.Remove(kept))
	}
	if err := c.store(ctx, content); err != nil {
		return err
	}
	a.say("the cluster has a new server token, and so has %s", c.initToken())
	a.say("the old one is kept in %s", c.vault.At(kept))
	fresh, err := c.ownToken()
	if err != nil {
		return err
	}
	if err := c.push(ctx, fresh); err != nil {
		return err
	}
	if !o.restart {
		a.say("servers take it when they start again: k3splan deploy restarts them one after the other")
		return nil
	}
	return c.restart(ctx)
}

// refresh asks the server for its token again.
func (c *cluster) refresh(ctx context.Context) error {
	token, err := c.server.Token(ctx)
	if err != nil {
		return err
	}
	password, err := secrets.TokenPassword(secrets.InitToken, []byte(token))
	if err != nil {
		return fmt.Errorf("the token of %s %w", c.container.Name, err)
	}
	c.token, c.password = token, password
	return nil
}

// store puts the cluster's token into the project's file, in the form that the old content has,
// after the server has taken it.
func (c *cluster) store(ctx context.Context, old []byte) error {
	if err := c.server.VerifyToken(ctx); err != nil {
		return &exitError{code: exitFailed, err: fmt.Errorf("%w; %s still holds the old one", err, c.initToken()),
			hint: "look at the server's journal; when it takes its token again: k3splan token adopt"}
	}
	content := c.password
	if secrets.IsFullToken(old) {
		content = c.token
	}
	return c.vault.Replace(string(secrets.InitToken), []byte(content+"\n"))
}

func (a *app) adoptToken(o rotation) (err error) {
	c, err := a.openCluster(o.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	present, err := c.vault.Read(string(secrets.InitToken))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		present = nil
	case err != nil:
		return err
	default:
		if password, err := secrets.TokenPassword(secrets.InitToken, present); err == nil && password == c.password {
			a.say("%s is the token of the cluster already", c.initToken())
			return nil
		}
		if err := a.consent(c.initToken()+" is another token than that of "+c.container.Name+": replace it?", o.yes); err != nil {
			return err
		}
		kept, err := c.vault.Retire(string(secrets.InitToken), time.Now())
		if err != nil {
			return err
		}
		a.say("the old one is kept in %s", c.vault.At(kept))
	}
	if err := c.store(context.Background(), present); err != nil {
		return err
	}
	a.say("%s is the token of the cluster now; bring it to all hosts with k3splan token push", c.initToken())
	return nil
}

// push brings the token to all hosts that hold it, and tells of each that failed.
func (c *cluster) push(ctx context.Context, content []byte) error {
	type place struct {
		host *plan.Host
		file string
	}
	var places []place
	for _, server := range c.plan.Servers() {
		places = append(places, place{server.Host, k3s.ServerTokenFile})
	}
	if _, err := c.vault.Read(string(secrets.AgentToken)); errors.Is(err, fs.ErrNotExist) {
		for _, agent := range c.plan.Agents() {
			places = append(places, place{agent.Host, k3s.AgentTokenFile})
		}
	}
	var failed []string
	for _, p := range places {
		run := func(ctx context.Context, stdin string, command ...string) (string, error) {
			if err := sshconf.CheckKnown([]*plan.Host{p.host}, c.keys); err != nil {
				return "", err
			}
			return c.conf.Machine(p.host, sshconf.DeployUser).Run(ctx, stdin, command...)
		}
		err := k3s.PutToken(ctx, run, p.file, strings.TrimSpace(string(content)))
		if err == nil {
			err = k3s.ForgetSeal(ctx, run)
		}
		if err != nil {
			c.app.say("%-12s failed: %v", p.host.Name, c.scrub(err))
			failed = append(failed, p.host.Name)
			continue
		}
		c.app.say("%-12s has it", p.host.Name)
	}
	if len(failed) > 0 {
		return &exitError{code: exitFailed, err: fmt.Errorf("%s could not get the new token and cannot join again without it", strings.Join(failed, ", ")),
			hint: "when they are reachable: k3splan token push"}
	}
	return nil
}

// serverLimit is how long a server may take to become ready again.
const serverLimit = 5 * time.Minute

// restart restarts the servers one after the other and stops at the first that fails.
func (c *cluster) restart(ctx context.Context) error {
	servers, err := c.servers("") // the init server first, as in a deployment
	if err != nil {
		return err
	}
	for i, server := range servers {
		if err := c.at(server).Restart(ctx, serverLimit); err != nil {
			hint := "see its journal: k3splan ssh " + server.Host.Name
			if i+1 < len(servers) {
				hint += "\nthe servers after it were not restarted"
			}
			return &exitError{code: exitFailed, err: err, hint: hint}
		}
		c.app.say("%-12s restarted and ready", server.Name)
	}
	return nil
}

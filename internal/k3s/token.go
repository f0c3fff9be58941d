package k3s

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"k3splan/internal/ask"
	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/remote"
	"k3splan/internal/secrets"
)

// TokenRequest is what [RotateToken], [AdoptToken] and [PushToken] work on. The caller holds the project's
// lock: a deployment at the same time would bring the old token, or half of the new one.
type TokenRequest struct {
	Plan  *plan.Plan
	Vault *secrets.Vault
	// Servers are asked one after the other for the cluster's token; Run asks them.
	Servers []*plan.Container
	Run     HostRunner
}

// Restarter restarts the servers of a plan in a safe order, as rollout.Restart does.
type Restarter interface {
	// Check returns why no server may be restarted now, or nil.
	Check(ctx context.Context) error
	// Servers restarts all of them; done is called after each that is a ready voter again.
	Servers(ctx context.Context, done func(server string)) error
}

// RotateToken replaces the cluster's server token, brings the new one to the hosts and, with a restarter, restarts
// the servers with it. If they could not be restarted now, nothing is changed.
func RotateToken(ctx context.Context, user ask.User, r TokenRequest, restart Restarter) error {
	c, err := Find(ctx, r.Plan, r.Servers, r.Vault, r.Run)
	if err != nil {
		return err
	}
	if restart != nil {
		if err := restart.Check(ctx); err != nil {
			return diag.WithHint(fmt.Errorf("the servers cannot be restarted now, so the token was not rotated: %w", err), diag.HintOf(err))
		}
	}
	kept, err := c.Rotate(ctx, func() error {
		return user.Type(ctx, "Servers that are down cannot start again before they get the new token (k3splan token push).\n"+
			"Rotate the cluster's server token, on "+c.Server()+"?", "yes")
	})
	if err != nil {
		return err
	}
	user.Say("the cluster has a new server token, and so has %s", c.File())
	user.Say("the old one is kept in %s", kept)
	if err := c.Push(ctx, sayPushed(user)); err != nil {
		return err
	}
	if restart == nil {
		user.Say("servers use it when they start again: k3splan deploy restarts them one after the other")
		return nil
	}
	return restart.Servers(ctx, func(server string) { user.Say("%-12s restarted and ready", server) })
}

// AdoptToken puts the server token of the running cluster into the project.
func AdoptToken(ctx context.Context, user ask.User, r TokenRequest) error {
	c, err := Find(ctx, r.Plan, r.Servers, r.Vault, r.Run)
	if err != nil {
		return err
	}
	kept, adopted, err := c.Adopt(ctx, func() error {
		return user.Type(ctx, c.File()+" is not the token of "+c.Server()+": replace it?", "yes")
	})
	if kept != "" {
		user.Say("the old one is kept in %s", kept)
	}
	switch {
	case err != nil:
		return err
	case !adopted:
		user.Say("%s already contains the token of the cluster", c.File())
	default:
		user.Say("%s now contains the token of the cluster; k3splan token push brings it to all hosts", c.File())
	}
	return nil
}

// PushToken brings the project's token to all hosts again, if a running server has it.
func PushToken(ctx context.Context, user ask.User, r TokenRequest) error {
	c, err := Find(ctx, r.Plan, r.Servers, r.Vault, r.Run)
	if err != nil {
		return err
	}
	return c.Push(ctx, sayPushed(user))
}

func sayPushed(user ask.User) func(host string, err error) {
	return func(host string, err error) {
		if err != nil {
			user.Say("%-12s failed: %s", host, remote.Reason(err))
			return
		}
		user.Say("%-12s has it", host)
	}
}

// Cluster is the running one, seen through one of its servers, beside the secrets of a project, which contain
// the token with which servers join it.
type Cluster struct {
	plan   *plan.Plan
	vault  *secrets.Vault
	run    HostRunner
	server Server // the one that answered
	// token is the server's, in its full form; password is its secret part.
	token, password string
}

// HostRunner is a [Runner] for any host.
type HostRunner func(ctx context.Context, host *plan.Host, stdin string, command ...string) (string, error)

// Servers returns all servers of a plan, the init server first.
func Servers(p *plan.Plan) []*plan.Container {
	servers := p.Servers()
	if i := slices.Index(servers, p.InitServer()); i > 0 {
		servers = slices.Concat(servers[i:i+1], servers[:i], servers[i+1:])
	}
	return servers
}

// Find asks servers for their token, one after the other until one has that of the cluster: the one with
// which all servers can start. A server that was started before a rotation still has the old one.
func Find(ctx context.Context, p *plan.Plan, servers []*plan.Container, vault *secrets.Vault, run HostRunner) (*Cluster, error) {
	c := &Cluster{plan: p, vault: vault, run: run}
	var failed error
	for _, server := range servers {
		c.server = c.at(server)
		err := c.refresh(ctx)
		if err == nil {
			return c, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, failed
}

// Server returns the name of the server that was asked.
func (c *Cluster) Server() string { return c.server.Container }

// File returns where the project keeps its token.
func (c *Cluster) File() string { return c.vault.At(string(secrets.InitToken)) }

func (c *Cluster) at(server *plan.Container) Server {
	return Server{Container: server.Name, Run: func(ctx context.Context, stdin string, command ...string) (string, error) {
		out, err := c.run(ctx, server.Host, stdin, command...)
		return out, c.scrub(err)
	}}
}

// scrub removes the token from an error, wherever it came from.
func (c *Cluster) scrub(err error) error {
	if err == nil || c.password == "" || !strings.Contains(err.Error(), c.password) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), c.password, "[token]"))
}

// own returns the content of the project's file, if it is the cluster's token.
func (c *Cluster) own() (content []byte, err error) {
	content, err = c.vault.Read(string(secrets.InitToken))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	password := ""
	if err == nil {
		if password, err = secrets.TokenPassword(secrets.InitToken, content); err != nil {
			return nil, fmt.Errorf("%s %w", c.File(), err)
		}
	}
	if password != c.password {
		return nil, diag.WithHint(fmt.Errorf("%s is not the token of the running cluster (asked %s); nothing was changed", c.File(), c.Server()),
			"after an interrupted rotation, or in a clone without secrets: k3splan token adopt")
	}
	return content, nil
}

// interrupted returns the project's token if a rotation was killed after the cluster had got the new one: it
// is still in its place, and a copy of it is among the retired secrets. kept is that copy.
func (c *Cluster) interrupted() (content []byte, kept string, err error) {
	content, err = c.vault.Read(string(secrets.InitToken))
	if err != nil {
		return nil, "", err
	}
	names, err := c.vault.List()
	if err != nil {
		return nil, "", err
	}
	for _, name := range slices.Backward(names) {
		if !strings.HasPrefix(name, secrets.Retired+"/"+string(secrets.InitToken)+"-") {
			continue
		}
		if copied, err := c.vault.Read(name); err == nil && bytes.Equal(copied, content) {
			return content, c.vault.At(name), nil
		}
	}
	return nil, "", nil
}

// Rotate replaces the cluster's token, if the project has the present one, and puts the new one into the
// project's file. consent is asked before anything is done. kept is where the old one is kept.
// After a rotation that was killed, it completes that one without asking.
func (c *Cluster) Rotate(ctx context.Context, consent func() error) (kept string, err error) {
	content, err := c.own()
	if err != nil {
		if old, kept, readErr := c.interrupted(); readErr == nil && kept != "" {
			return kept, c.store(old)
		}
		return "", err
	}
	if err := consent(); err != nil {
		return "", err
	}
	copied, err := c.vault.Retire(string(secrets.InitToken), time.Now())
	if err != nil {
		return "", err
	}
	old := c.password
	rotated := c.server.RotateToken(ctx)
	// after an interrupted connection only the server knows whether it was done
	if err := c.refresh(ctx); err != nil {
		return "", diag.WithHint(fmt.Errorf("%w; %s still contains the old one", errors.Join(rotated, err), c.File()),
			cmp.Or(diag.HintOf(err), "it is not known whether the token was rotated; when the server answers again: k3splan token adopt"))
	}
	if c.password == old {
		if rotated == nil {
			rotated = fmt.Errorf("%s reports that it rotated the token, but has the same one as before", c.Server())
		}
		if strings.Contains(rotated.Error(), "not authorized") {
			rotated = diag.WithHint(rotated, "a server that was not restarted since the last rotation refuses another one; k3splan deploy restarts those")
		}
		return "", errors.Join(rotated, c.vault.Remove(copied))
	}
	return c.vault.At(copied), c.store(content)
}

// refresh asks the server for the token, and its etcd whether it is the cluster's.
func (c *Cluster) refresh(ctx context.Context) error {
	token, err := c.server.Token(ctx)
	if err != nil {
		return err
	}
	password, err := secrets.TokenPassword(secrets.InitToken, []byte(token))
	if err != nil {
		return fmt.Errorf("the token of %s %w", c.Server(), err)
	}
	good, err := c.server.CanStartWith(ctx, password)
	switch {
	case err != nil && strings.Contains(err.Error(), "not found"):
		return diag.WithHint(err, "k3splan deploy brings etcdctl into the containers")
	case err != nil:
		return err
	case !good:
		return diag.WithHint(fmt.Errorf("the token of %s is not the one with which its etcd's data is encrypted", c.Server()),
			"if the token was rotated on another server, ask that one; if a rotation was interrupted here, the server has its old one again after\n`nixos-container run "+c.Server()+" -- systemctl restart k3s` on its host")
	}
	c.token, c.password = token, password
	return nil
}

// store puts the cluster's token into the project's file, in the form of the old content.
func (c *Cluster) store(old []byte) error {
	content := c.password
	if secrets.IsFullToken(old) {
		content = c.token
	}
	return c.vault.Replace(string(secrets.InitToken), []byte(content+"\n"))
}

// Adopt puts the cluster's token into the project's file; adopted is false if that contained it already.
// consent is asked before another token is replaced; kept is where that one is kept, also with an error, or
// empty.
func (c *Cluster) Adopt(ctx context.Context, consent func() error) (kept string, adopted bool, err error) {
	present, err := c.vault.Read(string(secrets.InitToken))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		present = nil
	case err != nil:
		return "", false, err
	default:
		if password, err := secrets.TokenPassword(secrets.InitToken, present); err == nil && password == c.password {
			return "", false, nil
		}
		if err := consent(); err != nil {
			return "", false, err
		}
		copied, err := c.vault.Retire(string(secrets.InitToken), time.Now())
		if err != nil {
			return "", false, err
		}
		kept = c.vault.At(copied)
	}
	err = c.store(present)
	return kept, err == nil, err
}

// Push brings the project's token, if it is the cluster's, to all hosts that keep it. done is called for each
// host.
func (c *Cluster) Push(ctx context.Context, done func(host string, err error)) error {
	content, err := c.own()
	if err != nil {
		return err
	}
	var failed []string
	for _, p := range tokenPlaces(c.plan, c.vault) {
		run := func(ctx context.Context, stdin string, command ...string) (string, error) {
			return c.run(ctx, p.host, stdin, command...)
		}
		err := putToken(ctx, run, p.file, strings.TrimSpace(string(content)))
		if err == nil {
			err = forgetSeal(ctx, run)
		}
		if err != nil {
			failed = append(failed, p.host.Name)
		}
		done(p.host.Name, c.scrub(err))
	}
	if len(failed) > 0 {
		return diag.WithHint(fmt.Errorf("%s could not get the new token and cannot join again without it", strings.Join(failed, ", ")),
			"when they are reachable: k3splan token push")
	}
	return nil
}

// tokenPlace is a file on a host that contains the server token.
type tokenPlace struct {
	host *plan.Host
	file string
}

// tokenPlaces returns all of them. Agents without a token of their own join with that of the servers.
func tokenPlaces(p *plan.Plan, vault *secrets.Vault) (places []tokenPlace) {
	for _, server := range p.Servers() {
		places = append(places, tokenPlace{server.Host, serverTokenFile})
	}
	if _, err := vault.Read(string(secrets.AgentToken)); errors.Is(err, fs.ErrNotExist) {
		for _, agent := range p.Agents() {
			places = append(places, tokenPlace{agent.Host, agentTokenFile})
		}
	}
	return places
}

// BringToken brings the project's server token to all hosts that keep another one, without asking a running
// server: there is none. done is called for each host that got it, or did not.
func BringToken(ctx context.Context, p *plan.Plan, vault *secrets.Vault, run HostRunner, done func(host string, err error)) error {
	content, err := vault.Read(string(secrets.InitToken))
	if err != nil {
		return err
	}
	token := strings.TrimSpace(string(content))
	for _, place := range tokenPlaces(p, vault) {
		onHost := func(ctx context.Context, stdin string, command ...string) (string, error) {
			return run(ctx, place.host, stdin, command...)
		}
		same, err := hasToken(ctx, onHost, place.file, token)
		if err == nil && same {
			continue
		}
		if err == nil {
			err = putToken(ctx, onHost, place.file, token)
		}
		if err == nil {
			err = forgetSeal(ctx, onHost)
		}
		done(place.host.Name, err)
	}
	return nil
}

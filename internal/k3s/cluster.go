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

	"k3splan/internal/diag"
	"k3splan/internal/plan"
	"k3splan/internal/secrets"
)

// Cluster is the living one, seen through one of its servers, beside the secrets of a project, which
// hold the token by which servers join it.
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

// Error is what went wrong with a cluster's token, and how to go on.
type Error struct {
	err  error
	hint string
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// Hint says how to go on.
func (e *Error) Hint() string { return e.hint }

// Servers are all servers of a plan, the init server first.
func Servers(p *plan.Plan) []*plan.Container {
	servers := p.Servers()
	if i := slices.Index(servers, p.InitServer()); i > 0 {
		servers = slices.Concat(servers[i:i+1], servers[:i], servers[i+1:])
	}
	return servers
}

// Find asks servers for their token, one after the other until one tells that of the cluster: the one
// that is good for all servers when they start again. A server that runs since before a rotation still
// tells the old one.
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

// Server is the name of the server that was asked.
func (c *Cluster) Server() string { return c.server.Container }

// File is the place of the project's token.
func (c *Cluster) File() string { return c.vault.At(string(secrets.InitToken)) }

func (c *Cluster) at(server *plan.Container) Server {
	return Server{Container: server.Name, Run: func(ctx context.Context, stdin string, command ...string) (string, error) {
		out, err := c.run(ctx, server.Host, stdin, command...)
		return out, c.scrub(err)
	}}
}

// scrub takes the token out of an error, whoever put it there.
func (c *Cluster) scrub(err error) error {
	if err == nil || c.password == "" || !strings.Contains(err.Error(), c.password) {
		return err
	}
	return errors.New(strings.ReplaceAll(err.Error(), c.password, "[token]"))
}

// own is the content of the project's file, if it is the cluster's token.
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
		return nil, &Error{fmt.Errorf("%s is not the token of the living cluster (asked %s); nothing was changed", c.File(), c.Server()),
			"after an interrupted rotation, or in a clone without secrets: k3splan token adopt"}
	}
	return content, nil
}

// interrupted returns the project's token if a rotation was killed after the cluster had taken the new one:
// a copy of it is among the retired secrets, and it is still in its place. kept is that copy.
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

// Rotate lets the cluster take a new token if the project's is the one that is good now, and puts it
// into the project's file. consent is asked before anything is done. kept is where the old one is. After a
// rotation that was killed, it completes that one.
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
	// an interrupted connection does not tell whether it was done: the server does
	if err := c.refresh(ctx); err != nil {
		return "", &Error{fmt.Errorf("%w; %s still holds the old one", errors.Join(rotated, err), c.File()),
			cmp.Or(diag.HintOf(err), "whether the token was rotated is not known; when the server answers again: k3splan token adopt")}
	}
	if c.password == old {
		if rotated == nil {
			rotated = fmt.Errorf("%s says that it rotated the token, and has the same one as before", c.Server())
		}
		if strings.Contains(rotated.Error(), "not authorized") {
			rotated = &Error{rotated, "a server that runs since before the last rotation refuses another one; k3splan deploy restarts those"}
		}
		return "", errors.Join(rotated, c.vault.Remove(copied))
	}
	return c.vault.At(copied), c.store(content)
}

// refresh asks the server for the token, and its etcd whether that is the cluster's.
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
		return &Error{err, "k3splan deploy brings etcdctl into the containers"}
	case err != nil:
		return err
	case !good:
		return &Error{fmt.Errorf("the token of %s is not the one for which its etcd's data is", c.Server()),
			"if the token was rotated on another server, ask that one; if a rotation broke off here, the server has its old one again after\n`nixos-container run " + c.Server() + " -- systemctl restart k3s` on its host"}
	}
	c.token, c.password = token, password
	return nil
}

// store puts the cluster's token into the project's file, in the form that the old content has.
func (c *Cluster) store(old []byte) error {
	content := c.password
	if secrets.IsFullToken(old) {
		content = c.token
	}
	return c.vault.Replace(string(secrets.InitToken), []byte(content+"\n"))
}

// Adopt puts the cluster's token into the project's file; adopted is false if it was there already.
// consent is asked before another token is replaced; kept is where that is then, also with an error,
// and else empty.
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

// Push brings the project's token, if it is the cluster's, to all hosts that hold it, and tells of each
// whether it worked.
func (c *Cluster) Push(ctx context.Context, told func(host string, err error)) error {
	content, err := c.own()
	if err != nil {
		return err
	}
	type place struct {
		host *plan.Host
		file string
	}
	var places []place
	for _, server := range c.plan.Servers() {
		places = append(places, place{server.Host, serverTokenFile})
	}
	if _, err := c.vault.Read(string(secrets.AgentToken)); errors.Is(err, fs.ErrNotExist) {
		for _, agent := range c.plan.Agents() {
			places = append(places, place{agent.Host, agentTokenFile})
		}
	}
	var failed []string
	for _, p := range places {
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
		told(p.host.Name, c.scrub(err))
	}
	if len(failed) > 0 {
		return &Error{fmt.Errorf("%s could not get the new token and cannot join again without it", strings.Join(failed, ", ")),
			"when they are reachable: k3splan token push"}
	}
	return nil
}

// restartLimit is how long a server may take to become ready again.
const restartLimit = 5 * time.Minute

// Restart restarts all servers, one after the other and the init server first, as a deployment does,
// tells of each that is ready, and stops at the first that fails.
func (c *Cluster) Restart(ctx context.Context, told func(server string)) error {
	servers := Servers(c.plan)
	for i, server := range servers {
		if err := c.at(server).Restart(ctx, restartLimit); err != nil {
			hint := "see its journal: k3splan ssh " + server.Host.Name
			if i+1 < len(servers) {
				hint += "\nthe servers after it were not restarted"
			}
			return &Error{err, hint}
		}
		told(server.Name)
	}
	return nil
}

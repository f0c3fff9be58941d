package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// a request fails rather than waits for a server that does not answer
var client = &http.Client{Timeout: time.Second}

// post sends JSON and reads JSON; the error is what the other side says.
func post(address, path string, question, answer any) error {
	body, err := json.Marshal(question)
	if err != nil {
		return err
	}
	response, err := client.Post("https://"+address+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != http.StatusOK:
		return errors.New(strings.TrimSpace(string(text)))
	case answer == nil:
		return nil
	}
	return json.Unmarshal(text, answer)
}

// handle serves JSON.
func handle[Q, A any](path string, do func(Q) (A, error)) {
	http.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		var question Q
		err := json.NewDecoder(r.Body).Decode(&question)
		var answer A
		if err == nil {
			answer, err = do(question)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusForbidden)
			return
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
}

// ownAddress waits for the address of this machine.
func ownAddress() string {
	for {
		addresses, _ := net.InterfaceAddrs()
		for _, address := range addresses {
			if ip, ok := address.(*net.IPNet); ok && ip.IP.To4() != nil && !ip.IP.IsLoopback() {
				return ip.IP.String()
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// caFile has the certificate of the cluster's CA, in k3s's place.
const caFile = serverDir + "/tls/server-ca.crt"

type join struct{ Name, IP, Key string }

func serve(o options) error {
	token, err := readToken(o.tokenFile)
	if err != nil {
		return err
	}
	key, agentKey := keyOf(token.secret), keyOf(token.secret)
	if o.agentTokenFile != "" {
		agentToken, err := readToken(o.agentTokenFile)
		if err != nil {
			return err
		}
		agentKey = keyOf(agentToken.secret)
	}
	c, err := load()
	switch {
	case err == nil && c.Data.Token != key:
		return errors.New("bootstrap data already found and encrypted with different token")
	case err == nil:
	case !errors.Is(err, os.ErrNotExist):
		return err
	default:
		if c, err = enter(o, token, agentKey); err != nil {
			return err
		}
	}
	for file, text := range map[string]string{
		serverDir + "/token":        c.fullToken(token.secret),
		"/etc/rancher/k3s/k3s.yaml": "apiVersion: v1\nkind: Config\n",
		serverDir + "/cred/passwd":  token.secret + ",server,server,k3s:server\n",
		caFile:                      c.Data.CA.Certificate,
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			return err
		}
	}
	c.locked(func() { c.Data.Agent = agentKey; err = c.save() })
	if err != nil {
		return err
	}
	settings, err := c.Data.CA.serving(ownAddress())
	if err != nil {
		return err
	}
	if err := trust(c.Data.CA.Certificate); err != nil {
		return err
	}
	c.answer()
	failed := make(chan error, 2)
	go func() { failed <- (&http.Server{Addr: ":6443", TLSConfig: settings}).ListenAndServeTLS("", "") }()
	go func() { failed <- http.ListenAndServe("127.0.0.1:2381", http.HandlerFunc(c.metrics)) }()
	go c.talk()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case err := <-failed:
		return err
	case <-stop:
		return nil
	}
}

// enter founds a cluster, or joins one.
func enter(o options, t token, agentKey string) (*cluster, error) {
	key := keyOf(t.secret)
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	self := member{Name: host + "-" + random(4), IP: ownAddress(), Version: newer()}
	c := &cluster{Self: self.Name, heard: map[string]time.Time{}, Data: data{Members: map[string]member{self.Name: self}, Nodes: map[string]node{}, Token: key, Agent: agentKey, TokenVersion: newer()}}
	if o.init {
		c.Data.CA, err = newAuthority()
		return c, err
	}
	where, err := url.Parse(o.server)
	if err != nil {
		return nil, err
	}
	if err := trustServer(where.Host, t); err != nil {
		return nil, fmt.Errorf("joining %s: %w", o.server, err)
	}
	var others data
	if err := post(where.Host, "/join", join{self.Name, self.IP, key}, &others); err != nil {
		return nil, fmt.Errorf("joining %s: %w", o.server, err)
	}
	c.Data.TokenVersion = 0
	c.merge(others)
	c.Data.CA = others.CA
	return c, nil
}

// answer serves the others and the programs in this container.
func (c *cluster) answer() {
	handle("/join", func(j join) (answer data, err error) {
		c.locked(func() {
			switch {
			case j.Key != c.Data.Token:
				err = errors.New("token CA hash does not match")
			case !c.hasQuorum():
				err = errors.New("etcdserver: no leader")
			default:
				for _, m := range c.voters() {
					if m.IP == j.IP && m.Name != j.Name {
						err = fmt.Errorf("etcd: peer URL of %s exists already", m.Name)
						return
					}
				}
				c.Data.Members[j.Name] = member{Name: j.Name, IP: j.IP, Version: newer()}
				c.heard[j.Name] = time.Now()
				answer, err = c.Data, c.save()
			}
		})
		return answer, err
	})
	handle("/sync", func(theirs data) (answer data, err error) {
		c.locked(func() { c.merge(theirs); answer = c.Data })
		return answer, nil
	})
	handle("/agent", func(a heartbeat) (servers []string, err error) {
		c.locked(func() { servers, err = c.agent(a) })
		return servers, err
	})
	handle("/data", func(struct{}) (answer local, err error) {
		c.locked(func() {
			self := c.Data.Members[c.Self]
			answer = local{Self: c.Self, Removed: self.Removed, Quorum: c.hasQuorum(), Data: c.Data}
		})
		return answer, nil
	})
	handle("/change", func(theirs data) (answer bool, err error) {
		c.locked(func() {
			if !c.hasQuorum() {
				err = errors.New("etcdserver: no leader")
				return
			}
			c.merge(theirs)
			err = c.save()
		})
		return true, err
	})
	handle("/token/rotate", func(struct{}) (answer bool, err error) {
		c.locked(func() {
			if !c.hasQuorum() {
				err = errors.New("etcdserver: no leader")
				return
			}
			secret := random(16)
			if c.Data.Agent == c.Data.Token {
				c.Data.Agent = keyOf(secret)
			}
			c.Data.Token, c.Data.TokenVersion = keyOf(secret), newer()
			err = errors.Join(os.WriteFile(serverDir+"/token", []byte(c.fullToken(secret)), 0o600), c.save())
		})
		return true, err
	})
	http.HandleFunc("/cacerts", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, c.Data.CA.Certificate) })
	// to anyone without a password, k3s says no more than that it runs
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "Unauthorized", http.StatusUnauthorized) })
}

// metrics are those of etcd.
func (c *cluster) metrics(w http.ResponseWriter, _ *http.Request) {
	c.locked(func() {
		leader := 0
		if c.hasQuorum() {
			leader = 1
		}
		fmt.Fprintf(w, "etcd_server_has_leader %d\netcd_server_is_learner 0\n", leader)
	})
}

func (c *cluster) fullToken(secret string) string {
	return fmt.Sprintf("K10%s::server:%s\n", hash(c.Data.CA.Certificate), secret)
}

// talk brings the servers' data together, over connections that stay open, and keeps it.
func (c *cluster) talk() {
	for {
		var others []member
		var ours data
		c.locked(func() {
			others = c.voters()
			text, _ := json.Marshal(c.Data)
			_ = json.Unmarshal(text, &ours)
		})
		for _, other := range others {
			if other.Name == c.Self {
				continue
			}
			go func() {
				var theirs data
				if post(net.JoinHostPort(other.IP, "6443"), "/sync", ours, &theirs) == nil {
					c.locked(func() { c.merge(theirs); c.heard[other.Name] = time.Now() })
				}
			}()
		}
		time.Sleep(500 * time.Millisecond)
		c.locked(func() { _ = c.save() })
	}
}

package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	serverDir = "/var/lib/rancher/k3s/server"
	stateFile = serverDir + "/db/etcd/lab.json"
	// by etcd's log k3s knows that it has joined
	logDir = serverDir + "/db/etcd/member/wal"
)

// member is a server. Of two versions of it, the later holds.
type member struct {
	Name    string // with k3s's random suffix
	IP      string
	Removed bool
	Version int64
}

// node is an agent as the cluster knows it.
type node struct {
	Name, Password, K3S string
	Labels, Annotations map[string]string
	Taints              []string
	// Renewed is when it last said that it is there.
	Renewed time.Time
	Gone    bool
	Version int64
}

// data is what all servers have.
type data struct {
	Members map[string]member
	Nodes   map[string]node
	// Token is the key of the bootstrap data, made from the token; Agent is that of agents.
	Token, Agent string
	TokenVersion int64
	CA           authority
}

func keyOf(secret string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(secret)))[:12] }

func newer() int64 { return time.Now().UnixNano() }

func random(bytes int) string {
	buffer := make([]byte, bytes)
	_, _ = rand.Read(buffer)
	return hex.EncodeToString(buffer)
}

// cluster is one server's view.
type cluster struct {
	mutex sync.Mutex
	// Self is this server's name among the members.
	Self string
	Data data
	// heard is when another server last answered.
	heard map[string]time.Time
}

func (c *cluster) locked(do func()) { c.mutex.Lock(); defer c.mutex.Unlock(); do() }

func (c *cluster) save() error {
	if err := os.MkdirAll(logDir, 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := os.WriteFile(stateFile+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(stateFile+".new", stateFile)
}

func load() (*cluster, error) {
	text, err := os.ReadFile(stateFile)
	if err != nil {
		return nil, err
	}
	c := &cluster{heard: map[string]time.Time{}}
	return c, json.Unmarshal(text, c)
}

// merge takes over what is newer in another server's data.
func (c *cluster) merge(other data) {
	for name, theirs := range other.Members {
		if ours, there := c.Data.Members[name]; !there || theirs.Version > ours.Version {
			c.Data.Members[name] = theirs
		}
	}
	for name, theirs := range other.Nodes {
		if ours, there := c.Data.Nodes[name]; !there || theirs.Version > ours.Version {
			c.Data.Nodes[name] = theirs
		}
	}
	if other.TokenVersion > c.Data.TokenVersion {
		c.Data.Token, c.Data.Agent, c.Data.TokenVersion = other.Token, other.Agent, other.TokenVersion
	}
}

// voters are the members that were not removed, in order.
func (c *cluster) voters() []member {
	var list []member
	for _, name := range slices.Sorted(maps.Keys(c.Data.Members)) {
		if m := c.Data.Members[name]; !m.Removed {
			list = append(list, m)
		}
	}
	return list
}

// fresh is how long an answer of another server counts: the election timeout that k3s gives to etcd.
const fresh = 5 * time.Second

// hasQuorum reports whether most of the voters were heard of lately.
func (c *cluster) hasQuorum() bool {
	voters, here := c.voters(), 0
	for _, m := range voters {
		if m.Name == c.Self || time.Since(c.heard[m.Name]) < fresh {
			here++
		}
	}
	return here > len(voters)/2
}

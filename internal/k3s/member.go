package k3s

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

// Member is a member of a server's etcd.
type Member struct {
	// ID is etcd's number of it, in hexadecimal.
	ID string
	// Name is that of the server, without the random number that k3s adds to distinguish a member from an
	// earlier one of the same server; "" for one that was added and has not started yet.
	Name string
	// Peers are its URLs for other members, joined by commas, and Peer is the address in the first; the zero
	// Addr if that has none.
	Peers string
	Peer  netip.Addr
	// Learner reports whether its vote does not count yet.
	Learner bool
}

var memberSuffix = regexp.MustCompile(`-[0-9a-f]{8}$`)

// ParseMember reads a line of "etcdctl member list": ID, status, name, peer URLs, client URLs, and whether it
// is a learner. ok is false for any other line.
func ParseMember(line string) (m Member, ok bool) {
	fields := strings.Split(strings.TrimSpace(line), ", ")
	if len(fields) < 3 {
		return Member{}, false
	}
	m = Member{ID: fields[0], Name: memberSuffix.ReplaceAllString(fields[2], ""), Learner: fields[len(fields)-1] == "true"}
	if len(fields) > 3 {
		m.Peers = fields[3]
		first, _, _ := strings.Cut(m.Peers, ",")
		if peer, err := url.Parse(first); err == nil {
			m.Peer, _ = netip.ParseAddr(peer.Hostname())
		}
	}
	return m, true
}

// IsOf reports whether it is the member of a server: by its name or, before it has one, by its address.
func (m Member) IsOf(server string, address netip.Addr) bool {
	return m.Name == server || m.Name == "" && m.Peer == address
}

// Members returns the members of the server's etcd, which must have a leader.
func (s Server) Members(ctx context.Context) ([]Member, error) {
	out, err := s.inside(ctx, "timeout", "20", "etcdctl", "member", "list")
	if err != nil {
		return nil, fmt.Errorf("ask %s for the members of etcd: %w", s.Container, err)
	}
	var members []Member
	for line := range strings.Lines(out) {
		if m, ok := ParseMember(line); ok {
			members = append(members, m)
		}
	}
	return members, nil
}

// RemoveMember removes a member from etcd. Its server must have stopped: a running one notices, sets its data
// aside and joins again.
func (s Server) RemoveMember(ctx context.Context, id string) error {
	if _, err := s.inside(ctx, "timeout", "40", "etcdctl", "member", "remove", id); err != nil {
		return fmt.Errorf("remove the member %s from etcd, on %s: %w", id, s.Container, err)
	}
	return nil
}

// Reaches reports whether the etcd of another server answers this one.
func (s Server) Reaches(ctx context.Context, address netip.Addr) bool {
	// etcdctl refuses a flag beside the variable
	_, err := s.inside(ctx, "env", "ETCDCTL_ENDPOINTS=https://"+address.String()+":2379", "timeout", "20", "etcdctl", "endpoint", "health")
	return err == nil
}

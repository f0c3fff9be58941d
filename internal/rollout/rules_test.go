package rollout

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"k3splan/internal/diag"
	"k3splan/internal/generations"
	"k3splan/internal/plan"
	"k3splan/internal/receipt"
)

// Each rule has its case here, in the order of their weight, with the words that the user reads and a
// case beside it in which there is nothing to object to.
func TestRules(t *testing.T) {
	three := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s", "karl": "a", "ulrich": ""}, "")
	members := []string{"olaf-s", "rolf-s", "ulf-s"}
	// healthy is the rack as deployed, of which some hosts are to change
	healthy := func(p *plan.Plan, changed ...string) Situation {
		s := living(t, p)
		for _, server := range p.Servers() {
			s.Health[server.Host.Name] = Health{Ready: true, Members: members}
		}
		return s.change(changed...)
	}
	empty := Observed{System: "/nix/store/installer", LAN: true}
	away := Observed{Unreachable: "no route to host"}
	// with changes what is known of a host; its server answers only if health does
	with := func(s Situation, host string, o Observed, health Health) Situation {
		s.Observed[host] = o
		s.Health[host] = health
		return s
	}
	none := func(s Situation, servers ...string) Situation {
		for _, name := range servers {
			s.Health[name] = Health{Why: "etcd has no leader"}
		}
		return s
	}
	without := func(s Situation, change func(*Situation)) Situation { change(&s); return s }
	otherPods := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s", "karl": "a", "ulrich": ""}, "pod_cidr: 10.50.0.0/16\nversions: {nixos: nixos-24.11, k3s: 1.31}\n")
	withoutKarl := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s", "karl": "", "ulrich": ""}, "")
	two := tables(t, map[string]string{"olaf": "i", "ulf": "s"}, "")
	five := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s", "karl": "s", "karl2": "s"}, "")
	on134 := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s", "karl": "a", "ulrich": ""}, "versions: {nixos: nixos-25.11, k3s: 1.34}\n")
	on2605 := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s", "karl": "a", "ulrich": ""}, "versions: {nixos: nixos-26.05, k3s: 1.34}\n")
	// back lets a host go back to a generation, from one with the containers of the plan
	back := func(s Situation, host string, to generations.Generation, was *receipt.Receipt) Situation {
		from := generations.Generation{Number: 13}
		if c := s.Plan.Host(host).Server; c != nil {
			from.Server = generations.Container{Name: c.Name, K3s: "1.31.14+k3s1", Address: c.Address.String()}
		}
		if c := s.Plan.Host(host).Agent; c != nil {
			from.Agent = generations.Container{Name: c.Name, K3s: "1.31.14+k3s1"}
		}
		to.Number = 12
		if s.Steps == nil {
			s.Steps = map[string]Step{}
		}
		s.Steps[host] = Step{From: from, To: to, Was: was}
		s.Work[host] = Work{System: true, Reasons: []string{"13 → 12"}}
		return s
	}
	server := func(name, k3s, address string) generations.Generation {
		return generations.Generation{Server: generations.Container{Name: name, K3s: k3s, Address: address}}
	}
	agent := func(name, k3s string) generations.Generation {
		return generations.Generation{Agent: generations.Container{Name: name, K3s: k3s}}
	}
	rolf, karl, ulrich := receiptOf(t, three, three.Host("rolf")), receiptOf(t, three, three.Host("karl")), receiptOf(t, three, three.Host("ulrich"))
	withKey, otherPlan := *ulrich, *karl
	withKey.Secrets.Kinds = map[string]string{"server-token": "x", "ssh-host-key": "y"}
	otherPlan.Plan = receiptOf(t, two, two.Host("olaf")).Plan
	rolledBack := func(s Situation, host string) Situation {
		o, r := s.Observed[host], *s.Observed[host].Receipt
		r.RolledBack = &receipt.Rollback{Time: time.Unix(0, 0), Generation: 12}
		o.Receipt = &r
		s.Observed[host] = o
		return s
	}
	cases := []struct {
		code    string
		message string
		objects Situation
		fine    Situation
	}{
		{"second-cluster", "the init server olaf-s is empty, and there is a cluster already (rolf has the state of rolf-s; ulf was deployed with a server and does not answer): it would found a second cluster",
			none(with(with(healthy(three, "olaf"), "olaf", empty, Health{}), "ulf", away, Health{}), "rolf"),
			none(healthy(three, "olaf"), "olaf", "rolf", "ulf")},
		{"two-clusters", "olaf-s and rolf-s belong to two clusters: etcd has olaf-s, and rolf-s and ulf-s",
			without(healthy(three, "karl"), func(s *Situation) {
				s.Health["olaf"] = Health{Ready: true, Members: []string{"olaf-s"}}
				s.Health["rolf"], s.Health["ulf"] = Health{Ready: true, Members: []string{"rolf-s", "ulf-s"}}, Health{Ready: true}
			}),
			without(healthy(three, "karl"), func(s *Situation) { // one of them has just joined
				s.Health["rolf"] = Health{Ready: true, Members: []string{"olaf-s", "rolf-s"}}
			})},
		{"restore-unfinished", "a restore of etcd is not finished: k3s is stopped on rolf and ulf",
			without(healthy(three, "karl"), func(s *Situation) {
				for _, host := range []string{"ulf", "rolf"} {
					o := s.Observed[host]
					o.Held = []string{host + "-s"}
					s.Observed[host] = o
				}
			}),
			without(healthy(three, "ulrich"), func(s *Situation) { // has nothing to do with k3s
				o := s.Observed["ulf"]
				o.Held = []string{"ulf-s"}
				s.Observed["ulf"] = o
			})},
		{"machine-of-another-host", "the machine that answers as karl was deployed as ulf, which is another host of the plan",
			with(healthy(three), "karl", Observed{System: "/nix/store/x", Receipt: receiptOf(t, three, three.Host("ulf")), LAN: true}, Health{}).change("karl"),
			healthy(three, "karl")},
		{"server-token-differs", "the server token is not the one that olaf and ulf got: k3s would fail at its next start",
			without(healthy(three, "rolf"), func(s *Situation) { s.OtherToken = []string{"ulf", "olaf"} }),
			without(healthy(three, "ulrich"), func(s *Situation) { s.OtherToken = []string{"ulf", "olaf"} })},
		{"quorum-lost", "ulf would be restarted while the server on rolf (etcd has no leader) is down: of 3 servers etcd needs 2, and 1 would be left",
			none(healthy(three, "ulf"), "rolf"),
			none(healthy(three, "ulf", "rolf"), "rolf")}, // which is repaired first
		{"repair-of-a-voter", "the server on rolf would be restarted although it may still vote: etcd has a leader, and only 1 of 3 voters are healthy (rolf-s is not: etcd has no leader)",
			none(healthy(three, "rolf"), "rolf", "ulf"),
			none(healthy(three, "rolf"), "rolf")},
		{"change-refused", "pod_cidr 10.42.0.0/16 → 10.50.0.0/16 (all servers; ",
			without(healthy(three), func(s *Situation) { s.Plan = otherPods; *s = s.change("ulf") }),
			without(healthy(three), func(s *Situation) { s.Plan = otherPods; *s = s.change("ulrich") })},
		{"k3s-step", "the server on rolf runs k3s 1.33, and would be changed to 1.31",
			without(healthy(three, "rolf"), func(s *Situation) { s.Health["rolf"] = Health{Ready: true, Version: "v1.33.1+k3s1", Members: members} }),
			without(healthy(three, "rolf"), func(s *Situation) { s.Health["rolf"] = Health{Ready: true, Version: "v1.31.2+k3s1", Members: members} })},
		{"etcd-step", "the servers have to run k3s 1.33.7+k3s3 at least before one of them gets 1.34, and these do not: rolf (1.33.5+k3s1); otherwise members",
			without(healthy(on134, "olaf"), func(s *Situation) {
				s.Health["olaf"], s.Health["rolf"] = Health{Ready: true, Version: "v1.33.7+k3s3", Members: members}, Health{Ready: true, Version: "v1.33.5+k3s1", Members: members}
			}),
			without(healthy(on134, "olaf"), func(s *Situation) {
				s.Health["olaf"], s.Health["rolf"] = Health{Ready: true, Version: "v1.33.10+k3s1", Members: members}, Health{Ready: true, Version: "v1.34.1+k3s1", Members: members}
			})},
		{"agent-newer", "the agent karl-a would run k3s 1.34, which is newer than that of the servers on rolf (1.33)",
			without(healthy(on134, "karl"), func(s *Situation) { s.Health["rolf"] = Health{Ready: true, Version: "v1.33.7+k3s3", Members: members} }),
			without(healthy(on134, "karl", "rolf"), func(s *Situation) { s.Health["rolf"] = Health{Ready: true, Version: "v1.33.7+k3s3", Members: members} })},
		{"rollback-k3s-minor", "the server on rolf runs k3s 1.31.14+k3s1, and generation 12 has 1.30.2+k3s1: k3s cannot go back to an older minor version",
			back(healthy(three), "rolf", server("rolf-s", "1.30.2+k3s1", ""), rolf),
			back(back(healthy(three), "rolf", server("rolf-s", "1.31.2+k3s1", ""), rolf), "karl", agent("karl-a", "1.30.2+k3s1"), karl)},
		{"rollback-server", "generation 12 of rolf has the server rolf-s at 10.0.10.99 and not 10.0.10.4",
			back(healthy(three), "rolf", server("rolf-s", "1.31.2+k3s1", "10.0.10.99"), rolf),
			back(healthy(three), "rolf", server("rolf-s", "1.31.2+k3s1", "10.0.10.4"), rolf)},
		{"member-emptied", "the server rolf-s is empty, and etcd still has it as a member: it would not be let in",
			with(healthy(three, "rolf"), "rolf", empty, Health{}),
			without(with(healthy(three, "rolf"), "rolf", empty, Health{}), func(s *Situation) { // it was removed from etcd
				s.Health["olaf"], s.Health["ulf"] = Health{Ready: true, Members: []string{"olaf-s", "ulf-s"}}, Health{Ready: true, Members: []string{"olaf-s", "ulf-s"}}
			})},
		{"nothing-to-join", "no server answers yet, and the init server's host olaf does not either: there is nothing to join for karl-a",
			none(with(with(healthy(three, "karl"), "karl", empty, Health{}), "olaf", away, Health{}), "rolf", "ulf"),
			none(with(with(healthy(three, "karl"), "karl", empty, Health{}), "olaf", away, Health{}), "ulf")}, // it asks rolf
		{"join-refused-by-etcd", "karl-s cannot join while the server on ulf (no route to host) is down: etcd takes no new member then",
			with(with(healthy(five, "karl"), "karl", empty, Health{}), "ulf", away, Health{}),
			with(healthy(five, "karl"), "karl", empty, Health{})},
		{"cluster-founded-again", "the init server olaf-s is empty and founds a new cluster, without anything of the one that karl had",
			with(with(with(healthy(three, "olaf"), "olaf", empty, Health{}), "rolf", empty, Health{}), "ulf", empty, Health{}),
			with(with(with(with(healthy(three, "olaf"), "olaf", empty, Health{}), "rolf", empty, Health{}), "ulf", empty, Health{}), "karl", empty, Health{})},
		{"quorum-impossible", "etcd cannot get its quorum: of the servers on olaf, rolf and ulf only olaf has its state: no server can become ready",
			none(with(with(healthy(three, "olaf"), "rolf", empty, Health{}), "ulf", empty, Health{}), "olaf"),
			none(with(with(healthy(three, "olaf"), "rolf", empty, Health{}), "ulf", away, Health{}), "olaf")}, // which may have its own
		{"init-server-down", "the init server olaf-s on olaf is down (no route to host): karl-a will join by rolf-s",
			with(with(healthy(three, "karl"), "karl", empty, Health{}), "olaf", away, Health{}),
			with(healthy(three, "karl"), "olaf", away, Health{})}, // an agent that joined before knows the others
		{"receipt-unreadable", "what karl was deployed with is not known: the receipt cannot be read",
			without(with(healthy(three), "karl", Observed{System: "/nix/store/x", LAN: true, BadReceipt: "the receipt cannot be read"}, Health{}), func(s *Situation) {
				s.Work["karl"] = Work{System: true, New: true, Reasons: []string{"the receipt cannot be read"}}
			}),
			healthy(three, "karl")},
		{"quorum-of-two", "the server on olaf restarts (with 2 servers a restart loses the quorum for a moment)",
			living(t, two).change("olaf"),
			healthy(three, "olaf")},
		{"reboots-in-wave", "karl is rebooted: NixOS 26.05 has another D-Bus than NixOS 25.11, which cannot change in a running system",
			without(healthy(on2605, "karl"), func(s *Situation) {
				o := s.Observed["karl"]
				o.NixOS = "25.11.20260101.0a1b2c3 (Xantusia)"
				s.Observed["karl"] = o
			}),
			without(healthy(on2605, "karl"), func(s *Situation) {
				o := s.Observed["karl"]
				o.NixOS = "26.05.20260701.0a1b2c3 (Y)"
				s.Observed["karl"] = o
			})},
		{"change-risky", "agent karl-a removed from karl (its Node stays behind)",
			without(healthy(three), func(s *Situation) { s.Plan = withoutKarl; *s = s.change("karl") }),
			healthy(three, "karl")},
		{"first-contact", "the address moves to a macvlan interface for the first time on ulrich (may cut the connection)",
			without(with(healthy(three), "ulrich", Observed{System: "/nix/store/installer"}, Health{}), func(s *Situation) { s.Work["ulrich"] = Work{System: true, New: true} }),
			healthy(three, "ulrich")},
		{"rollback-reboots", "ulrich is rebooted: generation 12 has another D-Bus and switch inhibitors, which cannot change in a running system",
			back(healthy(three), "ulrich", generations.Generation{Boots: []string{"D-Bus", "switch inhibitors"}}, ulrich),
			back(healthy(three), "ulrich", generations.Generation{}, ulrich)},
		{"rollback-undone", "ulrich was rolled back to generation 12 on 1970-01-01 ",
			rolledBack(healthy(three, "ulrich"), "ulrich"),
			rolledBack(healthy(three, "karl"), "ulrich")},
		{"rollback-agent", "generation 12 of karl does not have the agent karl-a: its pods stop, and its Node stays behind",
			back(healthy(three), "karl", generations.Generation{}, karl),
			back(healthy(three), "karl", agent("karl-a", "1.31.2+k3s1"), karl)},
		{"rollback-unknown", "no receipt is kept of generation 12 of ulrich",
			back(healthy(three), "ulrich", generations.Generation{}, nil),
			back(healthy(three), "ulrich", generations.Generation{}, ulrich)},
		{"rollback-secrets", "generation 12 of ulrich uses a secret that the plan does not have any more (ssh host key)",
			back(healthy(three), "ulrich", generations.Generation{}, &withKey),
			back(healthy(three), "ulrich", generations.Generation{}, ulrich)},
		{"rollback-apart", "karl and ulrich go back to different plans: numbers of generations are each host's own",
			back(back(healthy(three), "ulrich", generations.Generation{}, ulrich), "karl", agent("karl-a", "1.31.2+k3s1"), &otherPlan),
			back(back(healthy(three), "ulrich", generations.Generation{}, ulrich), "karl", agent("karl-a", "1.31.2+k3s1"), karl)},
	}
	var codes []string
	for i, test := range cases {
		codes = append(codes, test.code)
		t.Run(test.code, func(t *testing.T) {
			has := func(s Situation) (found *diag.Problem) {
				for _, p := range Judge(s) {
					if p.Code == test.code {
						return &p
					}
				}
				return nil
			}
			problem := has(test.objects)
			require.NotNil(t, problem, "%v", messages(Judge(test.objects)))
			require.True(t, strings.HasPrefix(problem.Message, test.message), problem.Message)
			require.NotEmpty(t, problem.Hint)
			require.Equal(t, rules[i].severity, problem.Severity)
			require.Nil(t, has(test.fine))
		})
	}
	var all []string
	for _, r := range rules {
		all = append(all, r.code)
	}
	require.Equal(t, all, codes, "each rule has its case, in the same order")
}

// Going back to a generation is judged by what it contains, and not by the plan of today.
func TestRulesOfARollback(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "karl": "a"}, "versions: {nixos: nixos-26.05, k3s: 1.34}\n")
	s := living(t, p).change("karl")
	s.Health["olaf"] = Health{Ready: true, Version: "v1.33.7+k3s3", Members: []string{"olaf-s"}}
	step := func(k3s string) Situation {
		s.Steps = map[string]Step{"karl": {
			From: generations.Generation{Number: 2, Agent: generations.Container{Name: "karl-a", K3s: "1.33.7+k3s3"}},
			To:   generations.Generation{Number: 3, Agent: generations.Container{Name: "karl-a", K3s: k3s}},
			Was:  receiptOf(t, p, p.Host("karl")),
		}}
		return s
	}
	require.Empty(t, messages(Judge(step("1.33.2+k3s1"))))
	require.Empty(t, messages(Judge(step("1.32.2+k3s1"))))
	require.Equal(t, []string{"refused the agent in generation 3 of karl has k3s 1.34.1+k3s1, and a server runs 1.33.7+k3s3: an agent must not be newer than a server"},
		messages(Judge(step("1.34.1+k3s1"))))
	// what cannot be known is not taken for harmless
	s = living(t, p)
	s.Work["olaf"] = Work{System: true}
	s.Steps = map[string]Step{"olaf": {To: generations.Generation{Number: 3, Server: generations.Container{Name: "olaf-s"}}, Was: receiptOf(t, p, p.Host("olaf"))}}
	require.Equal(t, []string{"refused whether generation 3 of olaf has another minor version of k3s than runs is unknown, and a server cannot go back one"}, messages(Judge(s)))
	for text, to := range map[string]generations.Container{
		"generation 3 of olaf does not have the server olaf-s, which stays a member of etcd": {},
		"generation 3 of olaf has the server odin-s and not olaf-s":                          {Name: "odin-s", K3s: "1.31.1+k3s1"},
	} {
		s.Steps = map[string]Step{"olaf": {From: generations.Generation{Number: 4, Server: generations.Container{Name: "olaf-s", K3s: "1.31.1+k3s1"}},
			To: generations.Generation{Number: 3, Server: to}, Was: receiptOf(t, p, p.Host("olaf"))}}
		require.Contains(t, messages(Judge(s)), "refused "+text)
	}
}

// A learner, a member that has not started, and one whose server was renamed are members as well.
func TestMembersAreThoseOfEtcd(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	down := func(change func(s Situation)) (list []string) {
		s := living(t, p).change("ulf")
		change(s)
		for _, m := range s.members() {
			if !m.ready {
				list = append(list, m.String()+": "+m.why)
			}
		}
		return list
	}
	all := []string{"olaf-s", "rolf-s", "ulf-s"}
	require.Empty(t, down(func(s Situation) { s.Health["olaf"] = Health{Ready: true, Members: all} }))
	require.Equal(t, []string{"the server on rolf: still a learner of etcd, not a voter"}, down(func(s Situation) {
		s.Health["olaf"], s.Health["rolf"] = Health{Ready: true, Members: all}, Health{Why: "still a learner of etcd, not a voter"}
	}))
	require.Equal(t, []string{"a member without a name: it was added to etcd and has not started yet"}, down(func(s Situation) {
		s.Health["olaf"] = Health{Ready: true, Members: all, Unnamed: 1}
	}))
	require.Equal(t, []string{"the server zora-s: no host of the plan runs it"}, down(func(s Situation) {
		s.Health["olaf"] = Health{Ready: true, Members: append([]string{"zora-s"}, all...)}
	}))
	require.Equal(t, []string{"the server on rolf: its host has no state of it"}, down(func(s Situation) {
		s.Health["olaf"], s.Health["rolf"], s.Observed["rolf"] = Health{Ready: true, Members: all}, Health{}, Observed{}
	}))
	// the old member of a server that was renamed by force
	require.Equal(t, []string{"the server on rolf: its host runs rolf-s instead"}, down(func(s Situation) {
		o := s.Observed["rolf"]
		o.Etcd = []string{"old-s", "rolf-s"}
		s.Observed["rolf"] = o
		s.Health["olaf"] = Health{Ready: true, Members: append([]string{"old-s"}, all...)}
	}))
	// two servers that answer in part: what one of them knows counts
	require.Equal(t, []string{"the server zora-s: no host of the plan runs it"}, down(func(s Situation) {
		s.Health["olaf"] = Health{Ready: true}
		s.Health["rolf"] = Health{Ready: true, Members: append([]string{"zora-s"}, all...)}
	}))
}

// A server that joined and was not promoted may be deployed again: its vote does not count.
func TestALearnerIsRepaired(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "ulf": "s"}, "")
	s := living(t, p).change("ulf")
	s.Health["olaf"] = Health{Ready: true, Members: []string{"olaf-s", "ulf-s"}, Learners: []string{"ulf-s"}}
	s.Health["ulf"] = Health{Why: "still a learner of etcd, not a voter"}
	require.Empty(t, messages(Judge(s)))
	s = s.change("olaf")
	s.Work["ulf"] = Work{}
	require.Equal(t, []string{"refused olaf would be restarted while the server on ulf (still a learner of etcd, not a voter) is down: of 1 server etcd needs 1, and 0 would be left"}, messages(Judge(s)))
}

// Without order and gates nothing is repaired before the others are stopped.
func TestQuorumWithoutOrder(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	s := living(t, p).change("olaf", "rolf", "ulf")
	s.Health["rolf"] = Health{Why: "etcd has no leader"}
	require.Empty(t, messages(Judge(s)))
	s.Unordered = true
	require.Equal(t, []string{"refused olaf and ulf would be restarted while the server on rolf (etcd has no leader) is down: of 3 servers etcd needs 2, and 1 would be left"}, messages(Judge(s)))
	require.Empty(t, messages(Judge(func() Situation {
		s := living(t, p).change("rolf")
		s.Health["rolf"], s.Unordered = Health{}, true
		return s
	}())))
}

// A restart or a reboot founds a second cluster as well as a deployment does.
func TestEveryStartFounds(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	for name, work := range map[string]Work{"deploy": {System: true}, "reboot": {Reboot: true}, "token": {Secrets: []string{serverToken}}} {
		s := living(t, p)
		o := s.Observed["olaf"]
		o.Etcd = nil
		s.Observed["olaf"], s.Health["olaf"] = o, Health{}
		s.Work["olaf"] = work
		list := judge(s, true)
		require.NotEmpty(t, list, name)
		require.Equal(t, "second-cluster", list[0].Code, name)
		o.Receipt = nil // the server was never deployed there
		s.Observed["olaf"] = o
		require.Equal(t, name == "deploy", s.founds(), name)
	}
}

// The commands name the member that is down, by its ID, also if another one of its name runs.
func TestRemovalNamesTheMember(t *testing.T) {
	p := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "")
	const remove = "on olaf: nixos-container run olaf-s -- etcdctl member remove "
	hint := func(id string, listed ...Listed) string {
		s := living(t, p).change("ulf")
		names := []string{}
		for _, m := range listed {
			if m.Name != "" {
				names = append(names, m.Name)
			}
		}
		s.Health["olaf"] = Health{Ready: true, Members: names, Listed: listed, ID: "a1", Unnamed: len(listed) - len(names)}
		s.Health["rolf"] = Health{Ready: true, ID: id}
		s.Health["ulf"] = Health{Ready: true, ID: "c3"}
		list := Judge(s)
		require.Len(t, list, 1, messages(list))
		require.Equal(t, "quorum-lost", list[0].Code)
		_, commands, _ := strings.Cut(list[0].Hint, "\n")
		return commands
	}
	olaf, ulf := Listed{"a1", "olaf-s", "https://10.0.10.3:2380"}, Listed{"c3", "ulf-s", "https://10.0.10.5:2380"}
	rolf, old := Listed{"b2", "rolf-s", "https://10.0.10.4:2380"}, Listed{"b9", "rolf-s", "https://10.0.10.99:2380"}
	require.Equal(t, remove+"b9 # rolf-s https://10.0.10.99:2380", hint("b2", olaf, old, rolf, ulf))
	require.Equal(t, remove+"b9 # rolf-s https://10.0.10.99:2380", hint("", olaf, old, rolf, ulf), "by its address")
	require.Contains(t, hint("", olaf, old, Listed{"b2", "rolf-s", ""}, ulf), remove+"ID of rolf-s", "which of them runs is not known")
	require.Equal(t, remove+"d4 # zora-s https://10.0.10.7:2380", hint("b2", olaf, rolf, ulf, Listed{"d4", "zora-s", "https://10.0.10.7:2380"}))
	require.Equal(t, remove+"d4 # https://10.0.10.7:2380", hint("b2", olaf, rolf, ulf, Listed{"d4", "", "https://10.0.10.7:2380"}))
}

// What joins asks the servers at the addresses of the plan, which are not those of the machines before they are
// deployed.
func TestNothingToJoin(t *testing.T) {
	was := tables(t, map[string]string{"karl": "a", "olaf": "i", "rolf": "s", "ulf": "s", "ulrich": ""}, "")
	now := edited(t, edited(t, edited(t, was, "10.0.10.3", "10.0.10.93"), "10.0.10.4", "10.0.10.94"), "10.0.10.5", "10.0.10.95")
	situation := func(now *plan.Plan, changed ...string) Situation {
		s := living(t, now)
		for _, h := range now.Hosts {
			s = s.by(t, map[string]*plan.Plan{h.Name: was})
		}
		return s.change(changed...)
	}
	require.Equal(t, []string{"refused karl-a would look for the cluster where it is not: olaf-s answers at 10.0.10.3, and the plan has it at 10.0.10.93"},
		messages(Judge(situation(now, "karl"))))
	require.Empty(t, messages(Judge(situation(now, "ulrich"))))
	require.Empty(t, messages(Judge(situation(edited(t, was, "10.0.10.3", "10.0.10.93"), "karl"))), "it asks the others")

	// two of three have lost their state: the third cannot become ready
	s := situation(was, "karl", "olaf", "rolf", "ulf")
	for _, name := range []string{"rolf", "ulf"} {
		s.Observed[name] = Observed{LAN: true}
		s.Work[name] = Work{System: true, New: true}
	}
	s.Health = map[string]Health{"olaf": {Why: "etcd has no leader"}}
	refused := Judge(s)
	require.Equal(t, []string{"refused etcd cannot get its quorum: of the servers on olaf, rolf and ulf only olaf has its state: there is nothing to join for rolf-s and ulf-s"}, messages(refused))
	require.Contains(t, refused[0].Hint, "k3splan deploy olaf first\notherwise restore a snapshot")
}

// What was forced stays forced for what it was about, and for nothing that is added later.
func TestAgreed(t *testing.T) {
	quorum := func(about ...string) objection {
		return objection{Problem: diag.Problem{Severity: diag.Error, Code: "quorum-lost", Message: "m", Hint: "h"}, about: about}
	}
	require.NoError(t, notAgreed(nil, nil))
	require.EqualError(t, notAgreed([]objection{quorum("rolf-s")}, nil), "refused: m")
	require.NoError(t, notAgreed([]objection{quorum("rolf-s")}, []objection{quorum("rolf-s", "ulf-s")}))
	require.Error(t, notAgreed([]objection{quorum("rolf-s", "ulf-s")}, []objection{quorum("rolf-s")}))
	require.Equal(t, "h", diag.HintOf(notAgreed([]objection{quorum("ulf-s")}, []objection{quorum("rolf-s")})))
	warning := quorum("rolf-s")
	warning.Severity = diag.Warning
	require.NoError(t, notAgreed([]objection{warning}, nil), "what was asked is not asked again")
}

// A member of etcd that does not answer may be one that is too old; where none leaves such a version, it matters
// no more.
func TestEtcdStepWithASilentMember(t *testing.T) {
	on134 := tables(t, map[string]string{"olaf": "i", "rolf": "s", "ulf": "s"}, "versions: {nixos: nixos-25.11, k3s: 1.34}\n")
	members := []string{"olaf-s", "rolf-s", "ulf-s"}
	for version, want := range map[string]string{
		"v1.33.7+k3s3": "the servers have to run k3s 1.33.7+k3s3 at least before one of them gets 1.34, and these do not: ulf (unknown); otherwise members",
		"v1.34.1+k3s1": "",
	} {
		s := living(t, on134).change("olaf")
		for _, host := range []string{"olaf", "rolf"} {
			s.Health[host] = Health{Ready: true, Version: version, Members: members}
		}
		s.Health["ulf"] = Health{Why: "does not answer"}
		found := etcdStep(s)
		if want == "" {
			require.Empty(t, found)
			continue
		}
		require.Len(t, found, 1)
		require.Contains(t, found[0].message, want)
	}
}

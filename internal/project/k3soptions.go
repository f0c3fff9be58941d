package project

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/files"
	"k3splan/internal/plan"
)

// k3sRole is the command of k3s that reads a configuration file.
type k3sRole string

const (
	serverRole k3sRole = "server"
	agentRole  k3sRole = "agent"
)

// file is the project's file with the options for all containers of a role.
func (r k3sRole) file() string {
	if r == agentRole {
		return files.AgentConfigFile
	}
	return files.ServerConfigFile
}

// k3sOption is an option of `k3s server` or `k3s agent`.
type k3sOption struct {
	server, agent bool
	// isBool: its value is true or false. isNumber: a whole number.
	isBool, isNumber bool
	// ofNode: the option configures kubelet, containerd or kube-proxy, which a server without an agent
	// does not run.
	ofNode bool
	// since is the minor version that introduced the option, 0 for all that k3splan deploys. k3s brings
	// some options to patch releases of older minors as well.
	since int
}

// newestMinor is the newest minor version of Kubernetes 1.x whose options are listed here. Of a newer
// one, unknown options may be new ones.
const newestMinor = 36

// k3sOptions lists the options of k3s 1.28 to 1.36, after pkg/cli/cmds of k3s: its name, then the roles
// (s, a), the kind (b for true or false, n for a number), N for options of the node, and the minor
// version since when it exists.
var k3sOptions = parseOptions(`
config sa | debug sab | v san | vmodule sa | log sa | alsologtostderr sab
bind-address sa | https-listen-port sn | supervisor-port sn | apiserver-port sn | apiserver-bind-address s
advertise-address s | advertise-port sn | tls-san s | tls-san-security sb | data-dir sa
cluster-cidr s | service-cidr s | service-node-port-range s | cluster-dns s | cluster-domain s
flannel-backend s | flannel-ipv6-masq sb | flannel-external-ip sb | egress-selector-mode s | servicelb-namespace s
write-kubeconfig s | write-kubeconfig-mode s | write-kubeconfig-group s 30 | helm-job-image s
token sa | token-file sa | agent-token s | agent-token-file s | server sa
cluster-init sb | cluster-reset sb | cluster-reset-restore-path s
kube-apiserver-arg s | etcd-arg s | kube-controller-manager-arg s | kube-scheduler-arg s
kube-cloud-controller-manager-arg s | kube-controller-arg s | kube-cloud-controller-arg s | helm-controller-arg s 33
datastore-endpoint s | datastore-cafile s | datastore-certfile s | datastore-keyfile s | kine-tls sb 29
etcd-expose-metrics sb | etcd-disable-snapshots sb | etcd-snapshot-name s | etcd-snapshot-schedule-cron s
etcd-snapshot-reconcile-interval s 32 | etcd-snapshot-retention sn | etcd-snapshot-dir s | etcd-snapshot-compress sb
etcd-s3 sb | etcd-s3-endpoint s | etcd-s3-endpoint-ca s | etcd-s3-skip-ssl-verify sb | etcd-s3-access-key s
etcd-s3-secret-key s | etcd-s3-session-token s 31 | etcd-s3-bucket s | etcd-s3-bucket-lookup-type s 33 | etcd-s3-region s
etcd-s3-folder s | etcd-s3-retention sn 34 | etcd-s3-proxy s 30 | etcd-s3-config-secret s 30 | etcd-s3-insecure sb | etcd-s3-timeout s
default-local-storage-path s | disable s | disable-scheduler sb | disable-cloud-controller sb | disable-kube-proxy sb
disable-network-policy sb | disable-helm-controller sb | disable-apiserver sb | disable-controller-manager sb
disable-etcd sb | disable-agent sb | embedded-registry sb | supervisor-metrics sb 30
secrets-encryption sb | secrets-encryption-provider s 32 | system-default-registry s | rootless sab | prefer-bundled-bin sab
enable-pprof sab | selinux sab | lb-server-port san | vpn-auth sa | vpn-auth-file sa
node-name sa | with-node-id sab | node-ip sa | node-external-ip sa | node-internal-dns saN 31 | node-external-dns saN 31
node-label saN | node-taint saN | image-credential-provider-bin-dir saN | image-credential-provider-config saN
docker sabN | container-runtime-endpoint saN | default-runtime saN 29 | image-service-endpoint saN
disable-default-registry-endpoint sabN | nonroot-devices sabN 31 | pause-image saN | snapshotter saN | private-registry saN
airgap-extra-registry saN | resolv-conf saN | flannel-iface saN | flannel-conf saN | flannel-cni-conf saN
kubelet-arg saN | kube-proxy-arg saN | protect-kernel-defaults sabN | disable-apiserver-lb ab
`)

func parseOptions(list string) map[string]k3sOption {
	options := map[string]k3sOption{}
	for text := range strings.FieldsFuncSeq(list, func(c rune) bool { return c == '|' || c == '\n' }) {
		fields := strings.Fields(text)
		if len(fields) == 0 {
			continue
		}
		has := func(letter string) bool { return strings.Contains(fields[1], letter) }
		o := k3sOption{server: has("s"), agent: has("a"), isBool: has("b"), isNumber: has("n"), ofNode: has("N")}
		if len(fields) > 2 {
			o.since, _ = strconv.Atoi(fields[2])
		}
		options[fields[0]] = o
	}
	return options
}

// optionNames returns the names of the options of a role, sorted.
func optionNames(role k3sRole) []string {
	var names []string
	for name, o := range k3sOptions {
		if role == serverRole && o.server || role == agentRole && o.agent {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// removedOptions are those of older releases of k3s, with what took their place.
var removedOptions = map[string]string{
	"no-deploy":        "disable, with the same names",
	"cluster-secret":   "the token: " + files.SecretsDir + "/init-token",
	"no-flannel":       "flannel-backend: none, in " + files.ServerConfigFile,
	"disable-selinux":  "selinux: false, which is the default",
	"storage-backend":  "datastore-endpoint; k3splan works with etcd only",
	"storage-endpoint": "datastore-endpoint; k3splan works with etcd only",
	"storage-cafile":   "datastore-cafile; k3splan works with etcd only",
	"storage-certfile": "datastore-certfile; k3splan works with etcd only",
	"storage-keyfile":  "datastore-keyfile; k3splan works with etcd only",
}

// plannedOption is an option that the plan decides: neither file may contradict it.
type plannedOption struct {
	roles []k3sRole
	// key of network.yaml, or column of the table of containers; where neither is set, k3splan itself
	// decides
	key, column string
	hint        string
}

var (
	bothRoles    = []k3sRole{serverRole, agentRole}
	onServers    = []k3sRole{serverRole}
	plannedItems = map[string]plannedOption{
		"cluster-cidr":       {roles: onServers, key: "pod_cidr", hint: "IPv4 only"},
		"service-cidr":       {roles: onServers, key: "service_cidr", hint: "IPv4 only"},
		"node-ip":            {roles: bothRoles, column: "ip", hint: "IPv4 only"},
		"advertise-address":  {roles: onServers, column: "ip", hint: "IPv4 only"},
		"node-name":          {roles: bothRoles, column: "name"},
		"server":             {roles: bothRoles, column: "type", hint: "what joins finds a server of the plan by itself"},
		"cluster-init":       {roles: onServers, column: "type", hint: "the server of type init starts the cluster"},
		"disable-agent":      {roles: onServers, column: "type", hint: "an agent is a row of its own, of type agent"},
		"token-file":         {roles: bothRoles, hint: "the token is " + files.SecretsDir + "/init-token"},
		"agent-token-file":   {roles: onServers, hint: "the token is " + files.SecretsDir + "/agent-token"},
		"cluster-reset":      {roles: onServers, hint: "it is for one start by hand: k3s server --cluster-reset"},
		"https-listen-port":  {roles: onServers, hint: "the servers listen on 6443"},
		"disable-etcd":       {roles: onServers, hint: "every server is a member of etcd"},
		"disable-apiserver":  {roles: onServers, hint: "every server runs the Kubernetes API"},
		"datastore-endpoint": {roles: onServers, hint: "k3splan works with k3s's own etcd only"},
		"data-dir":           {roles: bothRoles, hint: "the state is where k3splan mounts it"},
		"config":             {roles: bothRoles, hint: "this file is the configuration"},
	}
)

// secretOptions hold secrets, which must not be in a rendered file; the hint says where they belong.
var secretOptions = map[string]string{
	"token":                 "it belongs into " + files.SecretsDir + "/init-token",
	"agent-token":           "it belongs into " + files.SecretsDir + "/agent-token",
	"etcd-s3-access-key":    "create a Secret in kube-system and name it with etcd-s3-config-secret (k3s 1.30 or later)",
	"etcd-s3-secret-key":    "create a Secret in kube-system and name it with etcd-s3-config-secret (k3s 1.30 or later)",
	"etcd-s3-session-token": "create a Secret in kube-system and name it with etcd-s3-config-secret (k3s 1.30 or later)",
	"vpn-auth":              "bring it to the machines as a file, and name that with vpn-auth-file",
}

// checkOption returns what is wrong with the use of an option in the configuration of a role, without its
// place, or nil. written is the option as the user wrote it.
func checkOption(role k3sRole, key string, p *plan.Plan) *diag.Problem {
	wrong := func(severity diag.Severity, code, message, hint string) *diag.Problem {
		return &diag.Problem{Severity: severity, Code: code, Message: message, Hint: hint}
	}
	if len(key) < 2 { // k3s takes t for token, s for server, …
		return wrong(diag.Error, "key-reserved", "k3s takes it for the short form of an option", "write the option's long name")
	}
	if hint := secretOptions[key]; hint != "" {
		return wrong(diag.Error, "key-reserved", "a secret would be readable for everyone in the Nix store", hint)
	}
	if planned, found := plannedItems[key]; found && slices.Contains(planned.roles, role) {
		return wrong(diag.Error, "key-reserved", "the plan decides this option", planned.advice(p))
	}
	if instead := removedOptions[key]; instead != "" {
		return wrong(diag.Error, "k3s-option-removed", "an option of old releases of k3s, which newer ones skip", "now it is "+instead)
	}
	return checkKnown(role, key, p.Network.Versions.K3s.Minor)
}

// advice says where the plan has what the option sets.
func (o plannedOption) advice(p *plan.Plan) string {
	place := ""
	switch {
	case o.key != "":
		place = "it is " + o.key + " in " + p.Tables.Network
		if where := p.Network.Where(o.key); where != "" {
			place = "it is " + o.key + " in " + where
		}
	case o.column != "":
		place = "it follows from the column " + o.column + " of " + p.Tables.K3s
	}
	switch {
	case place != "" && o.hint != "":
		return "take it out: " + place + " (" + o.hint + ")"
	case place != "":
		return "take it out: " + place
	}
	return "take it out: " + o.hint
}

// checkKnown compares an option with those that k3s of a minor version ("1.31", "" if unknown) has for the
// role.
func checkKnown(role k3sRole, key, minor string) *diag.Problem {
	wrong := func(severity diag.Severity, code, message, hint string) *diag.Problem {
		return &diag.Problem{Severity: severity, Code: code, Message: message, Hint: hint}
	}
	number := minorNumber(minor)
	option, known := k3sOptions[key]
	switch {
	case !known:
		message := fmt.Sprintf("k3s %s has no such option, and skips it", role)
		names := optionNames(role)
		normal := strings.ToLower(strings.ReplaceAll(key, "_", "-"))
		nearest := diag.Nearest(normal, names)
		if slices.Contains(names, normal) {
			nearest = normal
		}
		switch {
		case number > newestMinor:
			return wrong(diag.Warning, "k3s-option-unknown", fmt.Sprintf("k3s 1.%d does not have this option", newestMinor), hintFor(nearest, "check it with: k3s "+string(role)+" --help"))
		case nearest != "":
			return wrong(diag.Error, "k3s-option-unknown", message, hintFor(nearest, ""))
		}
		return wrong(diag.Warning, "k3s-option-unknown", message, "k3s "+string(role)+" --help lists the options")
	case role == agentRole && !option.agent:
		return wrong(diag.Error, "k3s-option-unknown", "only k3s server has this option, and k3s agent skips it", "put it into "+files.ServerConfigFile)
	case role == serverRole && !option.server:
		return wrong(diag.Error, "k3s-option-unknown", "only k3s agent has this option, and k3s server skips it", "put it into "+files.AgentConfigFile)
	case key == "docker":
		return wrong(diag.Warning, "k3s-option-ignored", "the containers in which k3s runs have no Docker", "take it out: k3s brings containerd, and deploys images of any registry with it")
	case role == serverRole && option.ofNode:
		return wrong(diag.Warning, "k3s-option-ignored", "it has no effect: the servers run without an agent", "put it into "+files.AgentConfigFile)
	case option.since > 0 && number > 0 && number < option.since:
		return wrong(diag.Warning, "k3s-option-unknown", fmt.Sprintf("k3s has this option since 1.%d (or late patch releases of older minors); before, it skips it", option.since),
			"the plan has k3s "+minor)
	}
	return nil
}

func hintFor(nearest, otherwise string) string {
	if nearest == "" {
		return otherwise
	}
	return fmt.Sprintf("did you mean %q?", nearest)
}

// minorNumber returns 31 for "1.31", and 0 for anything else.
func minorNumber(minor string) int {
	text, ok := strings.CutPrefix(minor, "1.")
	if !ok {
		return 0
	}
	number, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return number
}

// packagedComponents are the values of the option disable, beside the names of the user's manifests.
var packagedComponents = []string{"coredns", "servicelb", "traefik", "local-storage", "metrics-server", "runtimes"}

// removedBackends are values of flannel-backend that k3s no longer has, with what took their place.
var removedBackends = map[string]string{"wireguard": "wireguard-native", "ipsec": "wireguard-native", "host-gateway": "host-gw"}

// optionChoices are options for which k3s takes some words only, and does not start, or makes no network, with
// others (pkg/agent/flannel and pkg/cli of k3s; https://docs.k3s.io/security/secrets-encryption).
var optionChoices = map[string][]string{
	"flannel-backend":             {"vxlan", "host-gw", "wireguard-native", "none", "tailscale"},
	"egress-selector-mode":        {"agent", "cluster", "pod", "disabled"},
	"secrets-encryption-provider": {"aescbc", "secretbox"},
	"etcd-s3-bucket-lookup-type":  {"auto", "dns", "path"},
}

// isSchedule reports whether a text has the form of a schedule of cron that k3s takes.
func isSchedule(text string) bool {
	fields := strings.Fields(text)
	if len(fields) > 0 && (strings.HasPrefix(fields[0], "TZ=") || strings.HasPrefix(fields[0], "CRON_TZ=")) {
		fields = fields[1:]
	}
	return len(fields) == 5 || len(fields) > 0 && strings.HasPrefix(fields[0], "@")
}

// checkOptionValue returns what is wrong with the texts that an option is given, without its place, or
// nil. The options that k3splan sets too are checked as the columns of the tables are.
func checkOptionValue(key string, texts []string, p *plan.Plan, manifests []Manifest) *diag.Problem {
	wrong := func(severity diag.Severity, code, value, message, hint string) *diag.Problem {
		return &diag.Problem{Value: value, Severity: severity, Code: code, Message: message, Hint: hint}
	}
	option := k3sOptions[key]
	for _, text := range texts {
		switch _, err := strconv.ParseInt(text, 0, 64); {
		case option.isBool && !isTruth(text):
			return wrong(diag.Error, "value-invalid", text, "k3s takes true or false here", "")
		case option.isNumber && err != nil:
			return wrong(diag.Error, "value-invalid", text, "k3s takes a whole number here", "")
		case (option.isBool || option.isNumber) && len(texts) > 1:
			return wrong(diag.Error, "value-invalid", "", "k3s takes a single value here", "")
		}
		switch key {
		case "disable":
			for item := range strings.SplitSeq(text, ",") {
				item = strings.TrimSpace(item)
				if !slices.Contains(packagedComponents, item) && !slices.ContainsFunc(manifests, func(m Manifest) bool { return m.stem() == item }) {
					return wrong(diag.Warning, "k3s-option-ignored", item, "k3s has no component of this name to disable",
						hintFor(diag.Nearest(item, packagedComponents), "the components are: "+strings.Join(packagedComponents, ", ")))
				}
			}
		case "cluster-dns", "node-external-ip":
			for item := range strings.SplitSeq(text, ",") {
				address, err := netip.ParseAddr(strings.TrimSpace(item))
				services := p.Network.ServiceCIDR
				switch {
				case err == nil && address.Is6():
					return wrong(diag.Error, "value-invalid", item, "IPv6 is not supported", "k3splan supports IPv4 only, neither IPv6 nor dual stack")
				case err != nil:
					return wrong(diag.Error, "value-invalid", item, "not an IPv4 address", "")
				case key == "cluster-dns" && services.IsValid() && !services.Contains(address):
					return wrong(diag.Error, "value-invalid", item, fmt.Sprintf("not in the service network %s", services), "service_cidr in "+p.Tables.Network+" defines it")
				}
			}
		case "flannel-ipv6-masq":
			return wrong(diag.Warning, "k3s-option-ignored", "", "it has no effect: k3splan supports IPv4 only", "take it out")
		case "flannel-backend":
			if instead := removedBackends[text]; instead != "" {
				return wrong(diag.Error, "value-invalid", text, "k3s no longer has this backend", fmt.Sprintf("write %q", instead))
			}
		case "etcd-snapshot-schedule-cron":
			if !isSchedule(text) {
				return wrong(diag.Error, "value-invalid", text, "not a schedule of cron", `five fields, such as "0 */12 * * *", or @daily`)
			}
		}
		if choices := optionChoices[key]; choices != nil && !slices.Contains(choices, text) {
			return wrong(diag.Error, "value-invalid", text, "k3s does not know this value", hintFor(diag.Nearest(strings.ToLower(text), choices), "one of: "+strings.Join(choices, ", ")))
		}
	}
	return plan.CheckNodeOption(key, texts)
}

// truths are the words for true and false of YAML 1.1, by which k3s reads its configuration.
var truths = map[string]bool{
	"true": true, "yes": true, "on": true, "y": true, "1": true, "t": true,
	"false": false, "no": false, "off": false, "n": false, "0": false, "f": false,
}

func isTruth(text string) bool {
	_, known := truths[strings.ToLower(text)]
	return known
}

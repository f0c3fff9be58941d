package plan

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k3splan/internal/diag"
	"k3splan/internal/table"

	"k8s.io/apimachinery/pkg/util/validation"
)

// A finding is what is wrong with a value; the caller knows the value's place.
type finding struct{ code, message, hint string }

// isHostName reports whether a name is a label of RFC 1123. NixOS refuses underscores in the names of
// nixos-containers. (A regular expression here would take a tenth of the time of reading a large plan.)
func isHostName(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-') {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
}

// reservedNames: Colmena's own (meta, network, defaults), those with a meaning in file names
// (all.nix, all.pub, deploy.pub), and what /etc/hosts defines on every machine.
var reservedNames = []string{"meta", "network", "defaults", "all", "deploy", "localhost"}

// checkName checks the name of a host or container.
func checkName(name string) *finding {
	switch {
	case slices.Contains(reservedNames, name):
		return &finding{"name-reserved", "the name has a meaning in k3splan or Colmena", "choose another one"}
	case !isHostName(name):
		return &finding{"name-invalid", "not a host name: letters a-z, digits and inner hyphens, at most 63", oddCharacter(name)}
	case strings.Trim(name, "0123456789") == "":
		return &finding{"name-invalid", "a name of digits alone would be taken for an address", "add a letter"}
	}
	return nil
}

// runFolders are folders and files of /run on hosts. NixOS's oci-containers makes /run/NAME for the files of
// an agent called NAME (RuntimeDirectory=), with owner and mode of its own, and removes it whenever the agent
// stops. Sources: systemd's file-hierarchy(7) and tmpfiles.d; NixOS's modules, of which
// virtualisation/oci-containers.nix, security/wrappers, services/system/nscd.nix and tasks/ name theirs;
// podman, netavark and iproute2 for containers, crun, libpod, netavark, netns, podman; Colmena for keys. What a
// service of the user's has is found by templates/modules/agent.nix.
var runFolders = strings.Fields(`
acpid agetty avahi-daemon binfmt blkid booted-system bus connman containers credentials credstore crun
cryptsetup current-system dbus dhcpcd docker dmeventd-client dmeventd-server ephemeral-trust faillock fsck
host initctl initramfs issue keys libpod libvirt lightdm lock log lvm machines mdadm motd mount netavark
netns networkmanager nix nixos nixos-containers nologin nscd opengl-driver opengl-driver-32 openvswitch
plymouth podman polkit-1 postgresql pppd resolvconf rpcbind runc secrets shm sshd sudo systemd tmpfiles udev
udisks2 uidmap user utmp uuidd wpa wpa-supplicant wrappers
`)

// checkAgentName refuses a name that would take a folder of /run away from the host.
func checkAgentName(name string) *finding {
	if !slices.Contains(runFolders, name) {
		return nil
	}
	return &finding{"name-reserved", fmt.Sprintf("hosts have a /run/%s, and NixOS removes the folder of an agent's name there when the agent stops", name),
		"choose another one, such as " + name + "-agent"}
}

// asciiName writes what people put into names with the characters that a name may have.
var asciiName = strings.NewReplacer("_", "-", ".", "-", " ", "-", "–", "-", "—", "-", "‑", "-", "ä", "ae", "ö", "oe", "ü", "ue", "ß", "ss")

// oddCharacter names the first character that is not ASCII, which may be invisible, or returns "".
func oddCharacter(text string) string {
	for _, char := range text {
		if char > '~' || char < ' ' {
			return fmt.Sprintf("it contains the character U+%04X", char)
		}
	}
	return ""
}

// checkName reports a problem with the name of a host or container, and offers one that nothing has.
func (l *loader) checkName(r row, name string) (ok bool) {
	wrong := checkName(name)
	if wrong != nil && wrong.code == "name-invalid" {
		if offer := l.offerName(name); offer != "" {
			wrong.hint = fmt.Sprintf("%q would do", offer)
		}
	}
	return r.check("name", wrong)
}

// offerName returns a valid name that is like name and that no row has, or "".
func (l *loader) offerName(name string) string {
	valid := strings.Trim(asciiName.Replace(name), "-")
	if checkName(valid) != nil {
		return ""
	}
	if l.offered == nil {
		l.offered = map[string]bool{}
		for _, t := range []*table.Table{l.hosts, l.k3s} {
			for _, r := range t.Rows {
				l.offered[strings.ToLower(r.Raw("name"))] = true
			}
		}
	}
	offer := valid
	for i := 2; l.offered[offer]; i++ {
		if offer = fmt.Sprintf("%s-%d", valid, i); checkName(offer) != nil {
			return ""
		}
	}
	l.offered[offer] = true
	return offer
}

// userName is what useradd accepts, and NixOS with it.
var userName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)

// systemUsers exist on every NixOS that k3splan makes, or have a role of their own there.
var systemUsers = []string{"root", "deploy", "nobody", "sshd", "messagebus", "polkituser", "nscd", "bin", "daemon"}

func checkAdmin(name string) *finding {
	switch {
	case slices.Contains(systemUsers, name) || strings.HasPrefix(name, "systemd-") || strings.HasPrefix(name, "nixbld"):
		return &finding{"name-reserved", "this account belongs to the system", "the admin is a person's account: choose another name"}
	case !userName.MatchString(name):
		return &finding{"name-invalid", "not a login name: letters a-z, digits, _ and -, at most 31, not beginning with a digit", offerAdmin(name)}
	}
	return nil
}

// offerAdmin returns the hint for a login name that is not valid, or "".
func offerAdmin(name string) string {
	offer := strings.TrimLeft(strings.Trim(asciiName.Replace(name), "-"), "0123456789-")
	if !userName.MatchString(offer) || checkAdmin(offer) != nil {
		return oddCharacter(name)
	}
	return fmt.Sprintf("%q would do", offer)
}

// LANInterface is the name of a host's own macvlan interface.
const LANInterface = "k3splan-lan"

// interfaceForm is what names of interfaces are made of in practice. The kernel's dev_valid_name takes
// all but "/", ":" and blanks, but systemd's units and sysctls do not.
var interfaceForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// checkInterface refuses what cannot be the name of a physical interface, of 1 to 15 bytes.
func checkInterface(name string) *finding {
	switch {
	case len(name) > 15:
		return &finding{"interface-invalid", "longer than 15 characters, which the kernel does not allow", "ip link shows the names"}
	case strings.Contains(name, "@"):
		before, _, _ := strings.Cut(name, "@")
		return &finding{"interface-invalid", "not a name of a network interface", fmt.Sprintf("write only the part before the @: %q", before)}
	case !interfaceForm.MatchString(name):
		return &finding{"interface-invalid", "not a name of a network interface", cmp.Or(oddCharacter(name), "ip link shows the names")}
	case slices.Contains([]string{"lo", "all", "default", LANInterface}, name):
		return &finding{"interface-invalid", "not a physical network interface", "ip link shows the names"}
	}
	return nil
}

var localTargets = []string{"local", "self", "this", "localhost", "127.0.0.1"}

// parseTarget reads an address or DNS name, with :PORT if need be, or one of the words for the
// deploying machine itself.
func parseTarget(text string) (Target, *finding) {
	if slices.Contains(localTargets, text) {
		return Target{Local: true}, nil
	}
	if holdsIPv6(text) {
		return Target{}, &finding{"target-invalid", "IPv6 is not supported", "k3splan supports IPv4 only: write an IPv4 address, or a name that leads to one"}
	}
	host, port, hasPort := strings.Cut(text, ":")
	target := Target{Host: host}
	if hasPort {
		number, err := strconv.Atoi(port)
		if err != nil || number < 1 || number > 65535 || strconv.Itoa(number) != port {
			return Target{}, &finding{"target-invalid", "not an address or name with a port from 1 to 65535", "such as 192.168.1.7:2222"}
		}
		if slices.Contains([]string{"local", "self", "this"}, host) {
			return Target{}, &finding{"target-invalid", "a local deployment does not use ssh, so it has no port", fmt.Sprintf("write %q", host)}
		}
		target.Port = number
	}
	if address, err := netip.ParseAddr(host); err == nil {
		if !address.Is4() || address.IsUnspecified() || address.IsMulticast() {
			return Target{}, &finding{"target-invalid", "not an address of a machine", ""}
		}
		return target, nil
	}
	if !isDNSName(host) {
		return Target{}, &finding{"target-invalid", "not an address, not a DNS name", "ADDRESS, NAME, either with :PORT, or local"}
	}
	return target, nil
}

// isDNSName reports whether name is a name of RFC 1123 that cannot be taken for an address.
func isDNSName(name string) bool {
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	return len(validation.IsDNS1123Subdomain(name)) == 0 && strings.Trim(last, "0123456789") != ""
}

// shortMAC matches the digits of a MAC address without those that a spreadsheet program takes for zeros
// before a number.
var shortMAC = regexp.MustCompile(`^[0-9]{6,11}$`)

// parseMAC returns the address in the form 52:54:00:12:34:56.
func parseMAC(text string) (string, *finding) {
	mac, err := net.ParseMAC(text)
	switch {
	case shortMAC.MatchString(text):
		return "", &finding{"mac-invalid", fmt.Sprintf("not a MAC address: %d of 12 digits, as a spreadsheet program removes zeros at the beginning", len(text)),
			"write it with colons: 52:54:00:12:34:56"}
	case err != nil || len(mac) != 6:
		return "", &finding{"mac-invalid", "not a MAC address", "six pairs of hexadecimal digits: 52:54:00:12:34:56"}
	case mac.String() == "00:00:00:00:00:00" || mac[0]&1 == 1:
		return "", &finding{"mac-invalid", "not the address of one machine: a group address, or all zeros", "ip link shows it after link/ether"}
	}
	return mac.String(), nil
}

// tagForm keeps tags apart from globs, lists and options in `--on @tag,other`.
var tagForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$`)

func checkTag(tag string) *finding {
	switch {
	case slices.Contains(RoleTags(), tag):
		return &finding{"name-reserved", "hosts have this tag by their containers", "choose another one"}
	case slices.Contains(reservedNames, tag):
		return &finding{"name-reserved", "the name has a meaning in k3splan or Colmena", "choose another one"}
	case tagForm.MatchString(tag):
		return nil
	case strings.ContainsAny(tag, ",;"):
		return &finding{"tag-invalid", "not a tag", "separate tags by blanks"}
	case strings.HasPrefix(tag, "@"):
		return &finding{"tag-invalid", "not a tag", "without the @, which is for command lines only"}
	}
	return &finding{"tag-invalid", "not a tag: letters a-z, digits, and . _ - inside", ""}
}

// kubeletLabels are the labels with a reserved prefix that a kubelet may set on its own node; with
// any other of them it does not start (Kubernetes, NodeRestriction).
var kubeletLabels = []string{
	"kubernetes.io/hostname", "kubernetes.io/arch", "kubernetes.io/os",
	"beta.kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/instance-type",
	"topology.kubernetes.io/region", "topology.kubernetes.io/zone",
	"failure-domain.beta.kubernetes.io/region", "failure-domain.beta.kubernetes.io/zone",
	"node.kubernetes.io/instance-type",
}

// checkLabel checks key=value as Kubernetes does.
func checkLabel(label string) *finding {
	key, value, hasValue := strings.Cut(label, "=")
	switch {
	case strings.Contains(value, ","):
		return &finding{"label-invalid", "not a label", "separate labels by blanks: " + strings.ReplaceAll(label, ",", " ")}
	case !hasValue || !isLabel(key, value):
		return &finding{"label-invalid", "not a label", "key=value, of letters, digits, - _ and . inside; several separated by blanks"}
	}
	prefix, _, hasPrefix := strings.Cut(key, "/")
	if hasPrefix && isKubernetesDomain(prefix) && !slices.Contains(kubeletLabels, key) &&
		!under(prefix, "kubelet.kubernetes.io") && !under(prefix, "node.kubernetes.io") {
		return &finding{"label-invalid", "a node may not set this label on itself: its kubelet would not start",
			"set it from outside: kubectl label node NAME " + label}
	}
	return nil
}

// CheckNodeOption checks the items of k3s's options node-label and node-taint as those of the columns
// labels and taints. It returns the first problem, without its place, or nil.
func CheckNodeOption(option string, items []string) *diag.Problem {
	check := map[string]func(string) *finding{"node-label": checkLabel, "node-taint": checkTaint}[option]
	for _, item := range items {
		if check == nil {
			break
		}
		if f := check(item); f != nil {
			return &diag.Problem{Value: item, Severity: diag.Error, Code: f.code, Message: f.message, Hint: f.hint}
		}
	}
	return nil
}

// isLabel follows Kubernetes' rules for the key and value of a label or taint.
func isLabel(key, value string) bool {
	return len(validation.IsQualifiedName(key))+len(validation.IsValidLabelValue(value)) == 0
}

func isKubernetesDomain(domain string) bool {
	return under(domain, "kubernetes.io") || under(domain, "k8s.io")
}

func under(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

var taintEffects = []string{"NoSchedule", "PreferNoSchedule", "NoExecute"}

// checkTaint checks key=value:Effect or key:Effect as Kubernetes does.
func checkTaint(taint string) *finding {
	const form = "key=value:Effect, several separated by blanks; Effect is NoSchedule, PreferNoSchedule or NoExecute"
	keyValue, effect, hasEffect := strings.Cut(taint, ":")
	if !hasEffect {
		return &finding{"taint-invalid", "not a taint", form}
	}
	if !slices.Contains(taintEffects, effect) {
		hint := form
		for _, known := range taintEffects {
			if strings.EqualFold(known, effect) || diag.Nearest(effect, taintEffects) == known {
				hint = fmt.Sprintf("did you mean %q?", known)
			}
		}
		return &finding{"taint-invalid", fmt.Sprintf("no such effect: %q", effect), hint}
	}
	key, value, _ := strings.Cut(keyValue, "=")
	if !isLabel(key, value) {
		return &finding{"taint-invalid", "not a taint", form}
	}
	return nil
}

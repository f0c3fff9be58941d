package remote

import (
	"context"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"k3splan/internal/files"
	"k3splan/internal/plan"
	"k3splan/internal/run"
)

// ownConfig is the user's own ssh configuration: the files that ssh reads by itself, or the one that the
// user has named for Colmena.
type ownConfig struct {
	// includes are arguments for Include.
	includes []string
	// args make ssh read exactly these files.
	args []string
	// specific is how Host lines name single hosts; with conditional, Match lines may do so too, and with
	// byUser they may depend on who logs in.
	specific            []hostPattern
	conditional, byUser bool
	// shares means that it shares connections in its own way.
	shares bool
}

// usersConfig looks at the user's configuration. file is the one that k3splan writes, which must not
// include itself.
func usersConfig(file string) ownConfig {
	named := os.Getenv("SSH_CONFIG_FILE")
	if absolute, err := filepath.Abs(named); named != "" && err == nil && absolute != file && !strings.ContainsAny(absolute, "\"\n\r") {
		own := ownConfig{includes: []string{`"` + globEscape.Replace(absolute) + `"`}, args: []string{"-F", absolute}}
		own.read(absolute, filepath.Join(home(), ".ssh"), 0)
		return own
	}
	own := ownConfig{includes: []string{"~/.ssh/config", "/etc/ssh/ssh_config"}}
	own.read(filepath.Join(home(), ".ssh", "config"), filepath.Join(home(), ".ssh"), 0)
	own.read("/etc/ssh/ssh_config", "/etc/ssh", 0)
	return own
}

// globEscape is for Include, which expands patterns.
var globEscape = strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`)

// home is the one that ssh uses, which is not $HOME.
func home() string {
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil && u.HomeDir != "" {
		return u.HomeDir
	}
	dir, _ := os.UserHomeDir()
	return dir
}

// maxIncludes is ssh's own limit of depth.
const maxIncludes = 16

// read finds out which hosts a configuration file has blocks for. It need not understand everything: it
// only saves asking ssh about hosts for which the answer is known. base is the folder of relative
// includes.
func (o *ownConfig) read(file, base string, depth int) {
	content, err := files.Read(file)
	if err != nil || strings.HasPrefix(string(content), inclusionHeader) {
		return // what k3splan itself has printed has only names, addresses and keys of hosts
	}
	for line := range strings.Lines(string(content)) {
		words := strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n=\"", r) })
		if len(words) < 2 {
			continue
		}
		switch keyword, rest := strings.ToLower(words[0]), words[1:]; keyword {
		case "host":
			for _, pattern := range rest {
				if pattern = strings.TrimPrefix(pattern, "!"); pattern != "*" { // "* !olaf" is about olaf, too
					o.specific = append(o.specific, compilePattern(pattern))
				}
			}
		case "match":
			o.conditional = o.conditional || len(rest) > 1 || !strings.EqualFold(rest[0], "all")
			o.byUser = o.byUser || strings.Contains(strings.ToLower(line), "user") || strings.Contains(line, "%r")
		case "controlmaster", "controlpath", "controlpersist":
			o.shares = true
		case "include":
			if strings.ContainsAny(line, "\"'\\") {
				o.conditional, o.byUser = true, true // a name with blanks, which ssh itself has to find
				continue
			}
			for _, pattern := range rest {
				o.include(pattern, base, depth)
			}
		}
	}
}

func (o *ownConfig) include(pattern, base string, depth int) {
	if strings.ContainsAny(pattern, "%$\\") || depth >= maxIncludes {
		o.conditional, o.byUser = true, true // ssh itself has to find out
		return
	}
	if rest, ok := strings.CutPrefix(pattern, "~/"); ok {
		pattern = filepath.Join(home(), rest)
	} else if !filepath.IsAbs(pattern) {
		pattern = filepath.Join(base, pattern)
	}
	found, _ := filepath.Glob(pattern)
	for _, file := range found {
		o.read(file, base, depth+1)
	}
}

type hostPattern = *regexp.Regexp

// compilePattern compiles a pattern of ssh, with * and ? (ssh_config(5), PATTERNS).
func compilePattern(pattern string) hostPattern {
	quoted := regexp.QuoteMeta(strings.ToLower(pattern))
	return regexp.MustCompile("^" + strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(quoted) + "$")
}

// noHost is a name for which no configuration has a block of its own.
const noHost = "k3splan-asks-for-the-defaults"

// setting is what the user's configuration has for one host, beyond that for every host.
type setting struct {
	// user is for whose logins it is, "" for everybody's.
	user string
	// lines are for programs that call the host by its address, and would miss them.
	lines []string
	// named are those of the lines that a call by the plan's name would miss, too, as ssh reads the
	// configuration again for the plan's address.
	named []string
}

// settings returns, by host, what the user's configuration has for the host's name and alias. Where the hosts
// are is the plan's matter, and so is by which key they are known.
func (o ownConfig) settings(hosts []*plan.Host, domain string) map[string][]setting {
	asked := map[string][]string{}
	for _, host := range hosts {
		for _, name := range namesOf(host, domain) {
			matches := func(p hostPattern) bool { return p.MatchString(strings.ToLower(name)) }
			if !host.Target.Local && (o.conditional || slices.ContainsFunc(o.specific, matches)) {
				asked[host.Name] = append(asked[host.Name], name)
			}
		}
	}
	if len(asked) == 0 {
		return nil
	}
	if _, ok := o.ask(noHost, ""); !ok {
		return nil // ssh itself will say what is wrong
	}
	found := map[string][]setting{}
	var mutex sync.Mutex
	var group sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.NumCPU())
	for _, host := range hosts {
		if len(asked[host.Name]) == 0 {
			continue
		}
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			all := o.settingsOf(host, asked[host.Name])
			mutex.Lock()
			defer mutex.Unlock()
			found[host.Name] = all
		})
	}
	group.Wait()
	return found
}

// settingsOf asks for the settings of a host by its names, for each user who may log in if they differ.
func (o ownConfig) settingsOf(host *plan.Host, names []string) (all []setting) {
	users := []string{""}
	if o.byUser {
		users = []string{DeployUser, "root"}
		if !slices.Contains(users, host.Admin) {
			users = append(users, host.Admin)
		}
	}
	for _, user := range users {
		defaults, _ := o.ask(noHost, user)
		s := setting{user: user}
		for _, name := range names {
			if answer, ok := o.ask(name, user); ok {
				lines, named := answer.beyond(defaults, name, host.Target.Port != 0)
				s.lines, s.named = append(s.lines, lines...), append(s.named, named...)
			}
		}
		if len(s.lines) > 0 {
			all = append(all, s)
		}
	}
	return all
}

// options are those of a destination, by their names in lower case.
type options map[string][]string

// ask asks ssh for the options of a destination, for a login as user, or as whoever the configuration has.
// Nothing is contacted.
func (o ownConfig) ask(destination, user string) (options, bool) {
	args := append(slices.Clone(o.args), "-o", "CanonicalizeHostname=no")
	if user != "" {
		args = append(args, "-l", user)
	}
	return askSSH(append(args, destination))
}

func askSSH(args []string) (options, bool) {
	out, err := run.Output(context.Background(), run.Command{Program: "ssh", Args: append([]string{"-G", "-T"}, args...), Timeout: 10 * time.Second, Limit: 1 << 20})
	if err != nil {
		return nil, false
	}
	found := options{}
	for line := range strings.Lines(out) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok {
			found[key] = append(found[key], value)
		}
	}
	return found, len(found) > 0
}

// carried are the options that concern how a host is reached and who logs in. Port is one only where the
// plan has none. A ControlPath is not: ssh answers with the user's and host's name in it, and a connection would
// be shared by all users.
var carried = []string{
	"proxyjump", "proxycommand", "proxyusefdpass", "identityfile", "certificatefile", "identitiesonly", "identityagent", "addkeystoagent",
	"bindaddress", "bindinterface", "addressfamily", "port", "connecttimeout", "connectionattempts", "tcpkeepalive", "compression",
	"ciphers", "kexalgorithms", "macs", "pubkeyauthentication", "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes",
	"preferredauthentications", "gssapiauthentication", "hostbasedauthentication", "pkcs11provider", "securitykeyprovider",
	"controlmaster", "controlpath", "controlpersist", "ipqos", "requiredrsasize",
}

// paths are those of the carried options whose value is one word that may contain blanks.
var paths = []string{"identityfile", "certificatefile", "identityagent", "pkcs11provider", "securitykeyprovider"}

// beyond returns the lines in which the options for a name differ from the defaults, and those of them that
// depend on the host's address.
func (o options) beyond(defaults options, name string, planHasPort bool) (lines, named []string) {
	for _, key := range carried {
		values := o[key]
		if slices.Equal(values, defaults[key]) || key == "port" && planHasPort {
			continue
		}
		if len(values) == 0 && (key == "proxyjump" || key == "proxycommand" || key == "controlpath") {
			values = []string{"none"} // an exception from what holds for every host, its address included
			named = append(named, key+" none")
		}
		for _, value := range values {
			if key == "controlpath" && value != "none" {
				continue
			}
			line := func(value string) string {
				if slices.Contains(paths, key) && strings.ContainsAny(value, " \t") {
					value = `"` + value + `"`
				}
				return key + " " + value
			}
			value = expand(value, "%n", name)
			if key == "identityfile" || key == "certificatefile" {
				if expanded := expand(value, "%h", o.address()); expanded != value {
					value = expanded
					named = append(named, line(value))
				}
			}
			lines = append(lines, line(value))
		}
	}
	// of the two, ssh takes the first, "none" included
	isJump := func(line string) bool {
		return (strings.HasPrefix(line, "proxyjump ") || strings.HasPrefix(line, "proxycommand ")) && !strings.HasSuffix(line, " none")
	}
	if slices.ContainsFunc(lines, isJump) {
		none := func(line string) bool { return line == "proxyjump none" || line == "proxycommand none" }
		lines, named = slices.DeleteFunc(lines, none), slices.DeleteFunc(named, none)
	}
	return lines, named
}

// address is where the user's configuration has the host.
func (o options) address() string { return strings.Join(o["hostname"], "") }

// expand replaces a token of ssh (ssh_config(5), TOKENS) in a value.
func expand(value, token, text string) string {
	parts := strings.Split(value, "%%")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], token, strings.ReplaceAll(text, "%", "%%"))
	}
	return strings.Join(parts, "%%")
}

// version is that of ssh. An unknown one counts as new.
var version = sync.OnceValue(func() [2]int {
	var said run.Excerpt
	_ = run.Run(context.Background(), run.Command{Program: "ssh", Args: []string{"-V"}, Stderr: &said, Timeout: 10 * time.Second}) // else it is unknown
	return parseVersion(said.String())
})

func parseVersion(text string) [2]int {
	m := openSSH.FindStringSubmatch(text)
	if m == nil {
		return [2]int{1 << 10}
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return [2]int{major, minor}
}

func (c *sinceVersion) has(version [2]int) bool { return slices.Compare(version[:], c[:]) >= 0 }

// sinceVersion is the first version of OpenSSH that has something.
type sinceVersion [2]int

var (
	// knownHostsCommand came in March 2021, sessionType with its like in August.
	knownHostsCommand = &sinceVersion{8, 5}
	sessionType       = &sinceVersion{8, 7}
)

var openSSH = regexp.MustCompile(`OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)`)
